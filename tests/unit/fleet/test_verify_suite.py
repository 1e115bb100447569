"""The checks run, and what they wrote becomes a report a host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fsdeploy.errors import ExitCode, exit_code_of
from fsdeploy.verify import suite
from fsdeploy.verify.report import Expectation, Outcome
from fsdeploy.verify.suite import parse_results, run_checks

# Stands for ssh: its last two words are the host and the command.
FAKE_SSH = """#!/bin/sh
for word; do host=$command command=$word; done
case $host in
gone) echo 'ssh: connect to host gone port 22: No route to host' >&2; exit 255 ;;
dying)
	case $command in *dmesg*) touch {folder}/dead ;; esac
	[ -e {folder}/dead ] && { echo 'Connection reset by peer' >&2; exit 255; } ;;
slow) case $command in *dmesg*) exec sleep 90 ;; esac ;;
esac
case $command in
*'uname -r'*) echo 2.6.32-431.el6.x86_64 ;;
*dmesg*) echo 'all is well' ;;
*) exit 1 ;;
esac
"""


def line(host: str, outcome: str, *, required: bool = True, reached: bool = True) -> str:
    return json.dumps(
        {
            "host": host,
            "name": "n",
            "title": "t",
            "group": "g",
            "outcome": outcome,
            "required": required,
            "message": "unreachable: gone" if not reached else "m",
            "seconds": 0.5,
            "reached": reached,
        }
    )


def test_a_report_a_host() -> None:
    hosts = {name: Expectation() for name in "abcd"}
    text = "\n".join(
        [
            json.dumps({"host": "a", "kernel": "2.6.32"}),
            line("a", "passed"),
            line("a", "failed", required=False),
            line("b", "failed"),
            line("b", "skipped"),
            line("c", "passed"),
            line("c", "failed", reached=False),
        ]
    )
    a, b, c, d = parse_results(text, hosts)
    assert a.ok
    assert a.kernel == "2.6.32"
    assert not b.ok
    assert b.reached
    assert [check.outcome for check in b.checks] == [Outcome.FAILED, Outcome.SKIPPED]
    assert not c.reached
    assert c.message == "gone"
    assert not d.reached
    assert exit_code_of([a]) is ExitCode.OK
    assert exit_code_of([a, b]) is ExitCode.CHECK_FAILED
    assert exit_code_of([a, b, c]) is ExitCode.UNREACHABLE


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "ssh"
    program.write_text(FAKE_SSH.replace("{folder}", str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = tmp_path / "config"
    config.touch()
    return config


def test_silent_dying_and_slow_hosts_hold_up_no_other(
    fake_ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "_HOSTS_A_PROCESS", 2)
    names = ("good", "gone", "dying", "slow")
    expected = {name: Expectation("2.6.32-431.el6.x86_64") for name in names}
    log = tmp_path / "log"
    good, gone, dying, slow = run_checks(fake_ssh, expected, log=log, limit=8)
    assert good.kernel == "2.6.32-431.el6.x86_64"
    found = {check.name: check for check in good.checks}
    assert found["kernel_release"].outcome is Outcome.PASSED
    assert found["kernel_release"].group == "kernel"
    assert found["kernel_log"].outcome is Outcome.PASSED
    assert found["package"].outcome is Outcome.FAILED
    assert not found["clock_source"].required

    assert not gone.reached
    assert gone.message == "ssh: connect to host gone port 22: No route to host"
    assert gone.checks == ()
    assert not dying.reached
    assert dying.message == "Connection reset by peer"
    assert "kernel_release" in {check.name for check in dying.checks}

    assert slow.reached
    (late,) = [check for check in slow.checks if "did not end" in check.message]
    assert (late.name, late.outcome) == ("kernel_log", Outcome.FAILED)
    assert late.message.startswith("a command did not end within 8 s: ")
    assert late.seconds > 7
    assert "checks of good, dying" in log.read_text()
