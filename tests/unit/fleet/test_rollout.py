"""Hosts on their way through a rollout: every end, and every place where it may be cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import ExitCode
from fsdeploy.fleet.driver import Driver
from fsdeploy.fleet.journal import Journal, State
from fsdeploy.fleet.plan import plan_rollout
from fsdeploy.fleet.preflight import Snapshot
from fsdeploy.fleet.rollout import RolloutReport, Walk
from tests.unit.fleet.fakes import NEW, OLD, CutOff, FakeDriver, FakeHost, package


class Rollout:
    """A rollout with a clock that the sleeping moves."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.sqlite3")
        self.package = package(folder / "kernel.rpm")
        self.now = 0.0
        self.number = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def walk(self, driver: Driver) -> Walk:
        return Walk(
            driver,
            self.journal,
            self.number,
            self.package,
            trial_timeout=60,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def run(self, driver: FakeDriver, cut: CutOff | None = None) -> RolloutReport:
        names = list(driver.hosts)
        if not self.number:
            self.number = self.journal.begin(inventory="i", release=NEW, hosts=names, request={})
        walk = self.walk(cast(Driver, cut or driver))
        walk.run(plan_rollout(NEW, names))
        return RolloutReport(NEW, walk.outcomes(names), 0)


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    return Rollout(tmp_path)


def test_all_is_well(rollout: Rollout) -> None:
    driver = FakeDriver(FakeHost("a"), FakeHost("b"), FakeHost("c"))
    report = rollout.run(driver)
    assert [host.state for host in report.hosts] == [State.PROMOTED] * 3
    assert {host.kernel for host in report.hosts} == {NEW}
    assert report.exit_code is ExitCode.OK
    assert all(host.default == NEW for host in driver.hosts.values())
    # The first host goes alone.
    assert [hosts for call, hosts in driver.calls if call == "stage"] == [("a",), ("b", "c")]
    states = [event.state for event in rollout.journal.events(rollout.number, "a")]
    assert states == ["planned", "preflight", "staged", "armed", "trial", "verified", "promoted"]


def test_a_second_rollout_changes_nothing(rollout: Rollout) -> None:
    host = FakeHost("a", running=NEW, default=NEW, installed={OLD, NEW})
    driver = FakeDriver(host)
    report = rollout.run(driver)
    assert report.hosts[0].state is State.PROMOTED
    assert "already runs" in report.hosts[0].reason
    assert [call for call, _ in driver.calls] == ["look"]


def test_a_second_rollout_still_knows_the_way_back(rollout: Rollout) -> None:
    driver = FakeDriver(FakeHost("a"))
    rollout.run(driver)
    rollout.number = 0
    rollout.run(driver)
    record = rollout.journal.latest_touched("a")
    assert record
    assert record.rollout == 2
    assert record.facts["previous"] == OLD


def test_a_panic_comes_back_and_is_told(rollout: Rollout) -> None:
    driver = FakeDriver(FakeHost("a", trial="panic"), FakeHost("b"))
    report = rollout.run(driver)
    first, second = report.hosts
    assert first.state is State.ROLLED_BACK
    assert f"came back on {OLD} by itself" in first.reason
    assert "Kernel panic - not syncing" in first.reason
    assert first.kernel == OLD
    assert driver.hosts["a"].installed == {OLD}
    assert second.state is State.PLANNED
    assert "a did not get through" in second.reason
    assert report.exit_code is ExitCode.CHECK_FAILED


def test_a_kernel_that_was_there_before_is_not_removed(rollout: Rollout) -> None:
    driver = FakeDriver(FakeHost("a", trial="panic", installed={OLD, NEW}))
    rollout.run(driver)
    assert driver.hosts["a"].installed == {OLD, NEW}


def test_a_host_that_stays_away_is_lost(rollout: Rollout) -> None:
    report = rollout.run(FakeDriver(FakeHost("a", trial="dead")))
    assert report.hosts[0].state is State.LOST
    assert "did not come back" in report.hosts[0].reason
    assert report.exit_code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("runs", "state"), [(NEW, State.PROMOTED), (OLD, State.ROLLED_BACK)], ids=["new", "old"]
)
def test_a_lost_host_that_answers_again_is_taken_up(
    rollout: Rollout, runs: str, state: State
) -> None:
    driver = FakeDriver(FakeHost("a", trial="dead"))
    rollout.run(driver)
    host = driver.hosts["a"]
    host.reached, host.running, host.deaf = True, runs, 0
    host.boots += 1
    walk = rollout.walk(driver)
    walk.find_again(["a"])
    walk.run(plan_rollout(NEW, ["a"]))
    assert walk.outcomes(["a"])[0].state is state
    assert (host.running, host.default, host.once) == (runs, runs, "")


def test_a_host_that_never_answers_keeps_its_state(rollout: Rollout) -> None:
    report = rollout.run(FakeDriver(FakeHost("a", reached=False)))
    assert report.hosts[0].state is State.PLANNED
    assert "Connection refused" in report.hosts[0].reason
    assert not report.hosts[0].reached
    assert report.exit_code is ExitCode.UNREACHABLE


def test_preflight_refuses_before_anything_is_done(rollout: Rollout) -> None:
    snapshot = Snapshot(machine="i686", running=OLD, rpm="/bin/rpm", boot={"default_release": OLD})
    driver = FakeDriver(FakeHost("a", snapshot=snapshot))
    report = rollout.run(driver)
    assert report.hosts[0].state is State.REFUSED
    assert "the machine is i686" in report.hosts[0].reason
    assert [call for call, _ in driver.calls] == ["look"]
    assert report.exit_code is ExitCode.CHECK_FAILED


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (FakeHost("a", stage_fails="no space"), "not installed: no space"),
        (FakeHost("a", arm_fails="no entry"), "not armed: no entry"),
        (FakeHost("a", promote_fails="read back wrong"), "not promoted: read back wrong"),
        (
            FakeHost("a", failing_checks=lambda h: "oops" if h.running == NEW else ""),
            "a check failed on the trial kernel: oops",
        ),
        (
            FakeHost("a", failing_checks=lambda h: "oops" if h.default == NEW else ""),
            "a check failed after the promotion: oops",
        ),
    ],
)
def test_what_fails_leaves_the_host_as_it_was(
    rollout: Rollout, host: FakeHost, reason: str
) -> None:
    report = rollout.run(FakeDriver(host))
    assert report.hosts[0].state is State.ROLLED_BACK
    assert reason in report.hosts[0].reason
    assert (host.running, host.default, host.once, host.installed) == (OLD, OLD, "", {OLD})


def make_good() -> FakeHost:
    return FakeHost("a")


def make_panicking() -> FakeHost:
    return FakeHost("a", trial="panic")


def make_unwell() -> FakeHost:
    return FakeHost("a", failing_checks=lambda host: "oops" if host.running == NEW else "")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("make", [make_good, make_panicking, make_unwell])
def test_cut_off_anywhere_a_resumed_rollout_ends_the_same(
    tmp_path: Path, make: Callable[[], FakeHost], after: bool
) -> None:
    whole = FakeDriver(make())
    (tmp_path / "whole").mkdir()
    wanted = Rollout(tmp_path / "whole").run(whole).hosts[0].state
    for cut in range(len(whole.calls)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        rollout = Rollout(folder)
        host = make()
        with pytest.raises(KeyboardInterrupt):
            rollout.run(FakeDriver(host), CutOff(FakeDriver(host), cut, after=after))
        report = rollout.run(FakeDriver(host))
        where = f"cut at {cut}: {whole.calls[cut]}"
        assert report.hosts[0].state is wanted, where
        assert host.once == "", where
        assert host.boots <= whole.hosts["a"].boots + 1, where
        assert host.default == host.running, where
