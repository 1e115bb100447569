"""Hosts on their way through a rollout: every end, and every place where it may be cut off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import ExitCode
from fsdeploy.fleet.driver import Driver
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Candidate, Policy, plan_rollout
from fsdeploy.fleet.preflight import Snapshot
from fsdeploy.fleet.rollout import RolloutReport, Walk
from fsdeploy.fleet.states import State
from tests.unit.fleet.fakes import NEW, OLD, FakeDriver, FakeHost, package


class Rollout:
    """A rollout with a clock that the sleeping moves."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.sqlite3")
        self.package = package(folder / "kernel.rpm")
        self.now = time.time()
        self.number = 0
        self.policy = Policy(shares=(), soak=0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, driver: FakeDriver) -> RolloutReport:
        hosts = [Candidate(host.name, host.hardware) for host in driver.hosts.values()]
        plan = plan_rollout(NEW, hosts, self.policy)
        if not self.number:
            self.number = self.journal.begin(plan, inventory="i", request={})
        walk = Walk(
            cast(Driver, driver),
            self.journal,
            self.number,
            self.package,
            trial_timeout=60,
            clock=lambda: self.now,
            now=lambda: self.now,
            sleep=self.sleep,
        )
        walk.find_again()
        stopped = walk.run()
        return RolloutReport(plan, walk.outcomes(stopped), 0, stopped=stopped)


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
    assert second.reason.startswith("not begun: 1 host failed, the budget is 0: a (rolled-back")
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
    report = rollout.run(driver)
    assert report.hosts[0].state is state
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
