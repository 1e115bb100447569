"""What `fsdeploy status` shows of few hosts and of many."""

from __future__ import annotations

import pytest

from fsdeploy.cli import status as command
from fsdeploy.fleet.status import HostStatus, StatusReport


def report_of(count: int, reason: str) -> StatusReport:
    return StatusReport(
        tuple(
            HostStatus(f"web{number}", "promoted", "2.6.32-fs1", reason, 1.0, 1)
            for number in range(count)
        ),
        None,
    )


def test_few_hosts_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    command.show(report_of(100, "already runs it"), live=False)
    said = capsys.readouterr().out
    assert all(f" web{number} " in said for number in range(100))


def test_without_a_rollout_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    command.show(StatusReport((), None), live=False)
    assert capsys.readouterr().out.startswith("No host was in a rollout yet")


def test_many_hosts_that_are_well_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    command.show(report_of(101, ""), live=False)
    assert "101 hosts that are promoted" in capsys.readouterr().out


def test_many_hosts_of_one_reason_have_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command.show(report_of(10_000, "already runs it"), live=False)
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if "already runs it" in line]
    assert "10000" in row
    assert "web0 " in row
    assert len(said.splitlines()) < 10


def test_many_reasons_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [report_of(1, f"fell after {number} s").hosts[0] for number in range(150)]
    command.show(StatusReport(tuple(hosts), None), live=False)
    said = capsys.readouterr().out
    assert "fell after 0 s" in said
    assert "and 50 other reasons\n" in said
