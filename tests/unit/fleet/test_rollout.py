"""Hosts on their way through a rollout: every end, and every place where it may be cut off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import boot
from fsdeploy.fleet import rollout as module
from fsdeploy.fleet.driver import Driver, StepResult
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.package import KernelPackage
from fsdeploy.fleet.plan import Candidate, Policy, plan_rollout
from fsdeploy.fleet.preflight import Snapshot
from fsdeploy.fleet.rollout import ResumeRequest, RolloutReport, RolloutRequest, Walk
from fsdeploy.fleet.states import State
from fsdeploy.fleet.why import why
from fsdeploy.repository.key import PublicKey
from fsdeploy.verify.report import CheckResult, Expectation
from tests.unit.fleet.fakes import NEW, OLD, FakeDriver, FakeHost, package


class Rollout:
    """A rollout with a clock that the sleeping moves."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.sqlite3")
        self.package = package(folder / "kernel.rpm")
        self.now = time.time()
        self.number = 0
        self.policy = Policy(shares=(), soak=0)
        self.while_waiting: Callable[[float], None] = lambda _: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.while_waiting(seconds)

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
def rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rollout:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
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


def test_a_tuned_host_keeps_its_tuning(rollout: Rollout, tmp_path: Path) -> None:
    setting = {"kind": "value", "target": "/proc/sys/net/core/somaxconn", "wanted": "16384"}
    ended = {"before": "128", "after": "16384", "outcome": "changed", "reason": ""}
    applied = tmp_path / "fsdeploy" / "tuning" / "applied"
    applied.mkdir(parents=True)
    (applied / "a.json").write_text(json.dumps({"results": [{**setting, **ended}]}))
    driver = FakeDriver(FakeHost("a"), FakeHost("b"))
    assert rollout.run(driver).exit_code is ExitCode.OK
    # On the trial kernel and after the promotion.
    of_a = [expected["a"].tuning for expected in driver.expected if "a" in expected]
    assert [[item["value"] for item in tuning] for tuning in of_a] == [["16384"]] * 2
    assert {e["b"].tuning for e in driver.expected if "b" in e} == {()}


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


def test_each_host_has_its_own_time_to_come_back(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(), soak=0, budget=2)
    driver = FakeDriver(
        FakeHost("a", trial="panic"), FakeHost("b", trial="dead", hardware="other"), power=True
    )
    first, second = rollout.run(driver).hosts
    # The fake clock is moved by the waiting between two looks only.
    assert "by itself after 3.0 s" in first.reason
    assert "after its power was switched" in second.reason


class LateHost(FakeHost):
    """Answers again in the very look that asks whether it booted at all."""

    def boot(self) -> None:
        super().boot()
        self.deaf = 22


@pytest.mark.parametrize(("trial", "state"), [("up", State.PROMOTED), ("panic", State.ROLLED_BACK)])
def test_a_host_that_comes_back_at_the_last_moment_is_back(
    rollout: Rollout, trial: str, state: State
) -> None:
    (host,) = rollout.run(FakeDriver(LateHost("a", trial=trial))).hosts
    assert host.state is state
    assert "did not boot" not in host.reason


class Hiccup(FakeDriver):
    """A host that does not answer for a number of looks once it was armed, or promoted."""

    def __init__(self, after: str, looks: int) -> None:
        super().__init__(FakeHost("a"))
        self._after = after
        self._looks = looks

    def _hiccup(self, after: str) -> None:
        if after == self._after:
            self.hosts["a"].deaf = self._looks + 1

    def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        results = super().arm(hosts)
        self._hiccup("arm")
        return results

    def verify(
        self, expectations: Mapping[str, Expectation]
    ) -> Mapping[str, Sequence[CheckResult] | None]:
        found = super().verify(expectations)
        if expectations["a"].default == NEW:
            self._hiccup("promote")
        return found


@pytest.mark.parametrize("after", ["arm", "promote"])
def test_a_look_that_got_no_answer_is_repeated(rollout: Rollout, after: str) -> None:
    driver = Hiccup(after, looks=3)
    report = rollout.run(driver)
    assert report.hosts[0].state is State.PROMOTED
    assert report.exit_code is ExitCode.OK
    assert driver.hosts["a"].done == ["install", "arm", "boot", "promote"]


def test_a_host_that_stays_silent_before_its_boot_is_left_armed(rollout: Rollout) -> None:
    driver = Hiccup("arm", looks=1000)
    began = rollout.now
    report = rollout.run(driver)
    assert report.hosts[0].state is State.ARMED
    assert report.exit_code is ExitCode.UNREACHABLE
    assert rollout.now - began < 90
    host = driver.hosts["a"]
    host.deaf = 0
    report = rollout.run(FakeDriver(host))
    assert report.hosts[0].state is State.PROMOTED
    assert host.done == ["install", "arm", "boot", "promote"]


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


# Waves


def states(report: RolloutReport) -> list[State]:
    return [host.state for host in sorted(report.hosts, key=lambda host: host.host)]


def fleet(*names: str) -> list[FakeHost]:
    return [FakeHost(name) for name in names]


def test_each_step_of_a_wave_is_one_play(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(40.0,), soak=0, at_once=2)
    driver = FakeDriver(*fleet("a", "b", "c", "d", "e"), FakeHost("f", hardware="blade"))
    assert rollout.run(driver).exit_code is ExitCode.OK
    for step in ("look", "stage", "arm", "reboot", "promote"):
        waves = [hosts for call, hosts in driver.calls if call == step]
        assert waves == [("a", "f"), ("b",), ("c", "d"), ("e",)], step


def test_a_wave_waits_for_the_soak_of_the_one_before(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(33.0,), soak=900)
    driver = FakeDriver(*fleet("a", "b", "c"))
    began = rollout.now
    rollout.run(driver)
    first, second, last = rollout.journal.waves(1)
    assert first.soaked
    assert second.soaked
    assert not last.soak
    assert rollout.now - began >= 1800
    # The checks of the canary run on trial, after its promotion and after its soak.
    assert driver.hosts["a"].checked == 3
    assert driver.hosts["c"].checked == 2


def test_the_hosts_of_every_part_are_looked_at_after_the_soak(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(60.0,), soak=900, at_once=2)
    driver = FakeDriver(*fleet("a", "b", "c", "d", "e"))
    rollout.run(driver)
    assert len(rollout.journal.waves(1)) == 4
    assert [host.checked for host in driver.hosts.values()] == [3, 3, 3, 3, 2]


def test_a_host_that_boots_during_the_soak_is_a_failure(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(), soak=900)
    driver = FakeDriver(*fleet("a", "b"))

    def crash(seconds: float) -> None:
        if seconds > 30 and driver.hosts["a"].boots == 1:
            driver.hosts["a"].boot()

    rollout.while_waiting = crash
    report = rollout.run(driver)
    assert states(report) == [State.PROMOTED, State.PLANNED]
    assert "booted again during the soak" in report.stopped
    assert report.exit_code is ExitCode.CHECK_FAILED
    # Somebody looked and allows for it.
    rollout.journal.reopen(1, budget=1)
    assert states(rollout.run(driver)) == [State.PROMOTED] * 2


def test_a_host_that_dies_during_the_soak_is_lost_and_found(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(), soak=900)
    driver = FakeDriver(*fleet("a", "b"))

    def die(seconds: float) -> None:
        if seconds > 30:
            driver.hosts["a"].reached = False

    rollout.while_waiting = die
    report = rollout.run(driver)
    assert states(report) == [State.LOST, State.PLANNED]
    assert "during the soak" in report.hosts[0].reason
    assert "--power-command" in report.hosts[0].reason
    assert report.exit_code is ExitCode.UNREACHABLE
    rollout.while_waiting = lambda _: None
    driver.hosts["a"].reached = True
    driver.hosts["a"].boot()
    driver.hosts["a"].deaf = 0
    assert states(rollout.run(driver)) == [State.PROMOTED] * 2
    assert driver.hosts["a"].done.count("promote") == 1


def test_over_the_budget_what_is_armed_is_taken_back(rollout: Rollout) -> None:
    driver = FakeDriver(*fleet("a"), FakeHost("b", arm_fails="no entry"), *fleet("c", "d"))
    report = rollout.run(driver)
    assert states(report) == [State.PROMOTED, State.ROLLED_BACK, State.STAGED, State.STAGED]
    for name in "cd":
        host = driver.hosts[name]
        assert (host.running, host.once, host.boots) == (OLD, "", 0)
    assert "1 host failed, the budget is 0: b (rolled-back: not armed: no entry)" in report.stopped
    # With one more allowed the rest goes on from there.
    rollout.journal.reopen(1, budget=1)
    assert states(rollout.run(driver)) == [
        State.PROMOTED,
        State.ROLLED_BACK,
        State.PROMOTED,
        State.PROMOTED,
    ]
    assert driver.hosts["c"].done.count("install") == 1


def test_the_budget_counts_over_all_waves(rollout: Rollout) -> None:
    rollout.policy = Policy(shares=(20.0, 20.0, 20.0), soak=0, budget=1)
    bad = [FakeHost(name, trial="panic") for name in "bc"]
    driver = FakeDriver(*fleet("a"), *bad, *fleet("d", "e"))
    report = rollout.run(driver)
    assert states(report) == [
        State.PROMOTED,
        State.ROLLED_BACK,
        State.ROLLED_BACK,
        State.PLANNED,
        State.PLANNED,
    ]
    assert "2 hosts failed, the budget is 1" in report.stopped


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refused"])
def test_a_class_does_not_get_past_its_canary(rollout: Rollout, silent: bool) -> None:
    rollout.policy = Policy(shares=(), soak=0, budget=5)
    bad = FakeHost("a") if silent else FakeHost("a", snapshot=Snapshot(machine="i686"))
    driver = FakeDriver(bad, *fleet("b"))
    if silent:
        # It went away between the question for its class and the look.
        bad.deaf = 1000
    report = rollout.run(driver)
    assert "a, the canary of metal, did not get through" in report.stopped
    assert report.hosts[1].state is State.PLANNED
    assert not driver.hosts["b"].done


def test_a_silent_host_of_a_later_wave_stops_nothing(rollout: Rollout) -> None:
    driver = FakeDriver(*fleet("a"), FakeHost("b", reached=False), *fleet("c"))
    report = rollout.run(driver)
    assert states(report) == [State.PROMOTED, State.PLANNED, State.PROMOTED]
    assert not report.stopped
    assert report.exit_code is ExitCode.UNREACHABLE
    driver.hosts["b"].reached = True
    assert rollout.run(driver).exit_code is ExitCode.OK


def test_the_power_command_brings_a_lost_host_back(rollout: Rollout) -> None:
    driver = FakeDriver(FakeHost("a", trial="dead"), power=True)
    report = rollout.run(driver)
    assert report.hosts[0].state is State.ROLLED_BACK
    assert f"came back on {OLD} after its power was switched" in report.hosts[0].reason
    assert driver.hosts["a"].installed == {OLD}


def test_the_power_command_brings_a_lost_host_back_later(rollout: Rollout) -> None:
    host = FakeHost("a", trial="dead")
    assert states(rollout.run(FakeDriver(host))) == [State.LOST]
    report = rollout.run(FakeDriver(host, power=True))
    assert report.hosts[0].state is State.ROLLED_BACK
    assert f"came back on {OLD} after its power was switched" in report.hosts[0].reason


def test_a_lost_host_that_is_found_is_not_left_half_way_by_a_used_up_budget(
    rollout: Rollout,
) -> None:
    rollout.policy = Policy(shares=(33.0,), soak=0, budget=1)
    driver = FakeDriver(*fleet("a"), FakeHost("b", trial="panic"), FakeHost("c", trial="dead"))
    report = rollout.run(driver)
    assert len(rollout.journal.waves(1)) == 3
    assert states(report) == [State.PROMOTED, State.ROLLED_BACK, State.LOST]
    host = driver.hosts["c"]
    host.reached = True
    host.boot()
    host.deaf = 0
    assert host.running == OLD
    # The failure of the wave before is one too many now.
    rollout.journal.reopen(1, budget=0)
    assert states(rollout.run(driver))[2] is State.ROLLED_BACK
    assert host.installed == {OLD}


def test_a_lost_host_that_somebody_booted_into_the_old_kernel_keeps_it(rollout: Rollout) -> None:
    """Lost after its promotion: the new kernel is still the default."""
    rollout.policy = Policy(shares=(), soak=900)
    driver = FakeDriver(*fleet("a", "b"))
    host = driver.hosts["a"]

    def die(seconds: float) -> None:
        host.reached = host.reached and seconds <= 30

    rollout.while_waiting = die
    rollout.run(driver)
    rollout.while_waiting = lambda _: None
    host.reached, host.once = True, OLD
    host.boot()
    host.deaf = 0
    assert states(rollout.run(driver))[0] is State.ROLLED_BACK
    assert (host.running, host.default) == (OLD, OLD)


# Where a rollout begins and goes on


@pytest.fixture
def fleet_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RolloutRequest:
    """A request for two hosts that play along."""
    kernel = package(tmp_path / "kernel.rpm")
    driver = FakeDriver(*fleet("a", "b"))
    monkeypatch.setattr(module, "read_package", lambda *_: kernel)
    monkeypatch.setattr(module, "_driver", lambda *_arguments: driver)
    monkeypatch.setattr(boot, "_POLL_SECONDS", 0.0)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("fleet: {hosts: {a: , b: }}")
    return RolloutRequest(inventory, kernel.path, policy=Policy(soak=0))


def test_a_dry_run_shows_the_waves_and_does_nothing(
    fleet_of_two: RolloutRequest, tmp_path: Path
) -> None:
    with Journal(tmp_path / "j") as journal:
        report = module.rollout(replace(fleet_of_two, dry_run=True), journal=journal)
        assert journal.latest() is None
    told = report.as_dict()
    assert [(wave["name"], wave["hosts"]) for wave in told["waves"]] == [
        ("canaries", ["a"]),
        ("5 %", ["b"]),
    ]
    assert told["waves"][0]["classes"] == ["metal"]
    assert report.exit_code is ExitCode.OK
    assert [host.wave for host in report.hosts] == [1, 2]


def test_a_new_rollout_does_not_begin_on_hosts_left_half_way(
    fleet_of_two: RolloutRequest, tmp_path: Path
) -> None:
    with Journal(tmp_path / "j") as journal:
        plan = plan_rollout("other", [Candidate("b", "metal")])
        journal.begin(plan, inventory="i", request={})
        for state in (State.PREFLIGHT, State.STAGED, State.ARMED):
            journal.move(1, "b", state)
        with pytest.raises(FsdeployError, match="rollout 1 left b half way") as problem:
            module.rollout(fleet_of_two, journal=journal)
        assert "fsdeploy rollback --level kernel" in problem.value.hint
        journal.move(1, "b", State.ROLLED_BACK)
        assert module.rollout(fleet_of_two, journal=journal).exit_code is ExitCode.OK


def test_a_resume_brings_the_package_that_was_begun(
    fleet_of_two: RolloutRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(FsdeployError, match="no rollout to resume"):
            module.resume(ResumeRequest(), journal=journal)
        hosts = [Candidate("a", "metal"), Candidate("b", "metal")]
        plan = plan_rollout(NEW, hosts, fleet_of_two.policy)
        asked = {**fleet_of_two.as_dict(), "sha256": "1" * 64}
        journal.begin(plan, inventory=str(fleet_of_two.inventory), request=asked)
        with pytest.raises(FsdeployError, match="another file than the one"):
            module.resume(ResumeRequest(), journal=journal)
        kernel = replace(package(tmp_path / "kernel.rpm"), sha256="1" * 64, release="other")
        monkeypatch.setattr(module, "read_package", lambda *_: kernel)
        with pytest.raises(FsdeployError, match="the rollout to resume brings"):
            module.resume(ResumeRequest(), journal=journal)
        monkeypatch.setattr(module, "read_package", lambda *_: replace(kernel, release=NEW))
        assert module.resume(ResumeRequest(), journal=journal).exit_code is ExitCode.OK
        with pytest.raises(FsdeployError, match="no rollout to resume"):
            module.resume(ResumeRequest(), journal=journal)


def test_a_resume_asks_for_the_same_signature(
    fleet_of_two: RolloutRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = replace(package(tmp_path / "kernel.rpm"), key=PublicKey(tmp_path / "key", "F" * 40))
    asked_with: list[Path | None] = []

    def read(_path: Path, key: Path | None) -> KernelPackage:
        asked_with.append(key)
        return signed

    monkeypatch.setattr(module, "read_package", read)
    with Journal(tmp_path / "j") as journal:
        hosts = [Candidate("a", "metal"), Candidate("b", "metal")]
        plan = plan_rollout(NEW, hosts, fleet_of_two.policy)
        monkeypatch.setattr(module, "_plan", lambda *_: plan)
        monkeypatch.setattr(module.Walk, "run", lambda _walk: "cut off")
        module.rollout(replace(fleet_of_two, repository="http://repo"), journal=journal)
        record = journal.latest()
        assert record
        assert record.request["fingerprint"] == "F" * 40
        # The key that was found beside the package is the one that is asked for again.
        module.resume(ResumeRequest(), journal=journal)
        assert asked_with == [None, tmp_path / "key"]
        for other, message in (
            (PublicKey(tmp_path / "key", "E" * 40), f"asks for the key {'F' * 40}, given is E"),
            (None, "--repository needs the public key"),
        ):
            signed = replace(signed, key=other)
            with pytest.raises(FsdeployError, match=message):
                module.resume(ResumeRequest(), journal=journal)


def test_hosts_fetch_only_what_is_signed(fleet_of_two: RolloutRequest, tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(FsdeployError, match="--repository needs the public key"):
            module.rollout(replace(fleet_of_two, repository="http://repo"), journal=journal)
        assert journal.latest() is None


def test_a_refused_package_stops_the_waves_and_is_told(
    fleet_of_two: RolloutRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "the package is not signed: rpm says: sha1 md5 OK"
    one, two = fleet("a", "b")
    one.stage_fails = two.stage_fails = said
    monkeypatch.setattr(module, "_driver", lambda *_arguments: FakeDriver(one, two))
    with Journal(tmp_path / "j") as journal:
        report = module.rollout(fleet_of_two, journal=journal)
        assert report.exit_code is ExitCode.CHECK_FAILED
        assert [host.state for host in report.hosts] == [State.ROLLED_BACK, State.PLANNED]
        assert said in report.stopped
        assert why("a", journal=journal).sentence == f"rolled back: not installed: {said}"
        assert said in why("b", journal=journal).sentence
    assert (one.boots, two.boots, one.done, two.done) == (0, 0, [], [])


def test_a_host_may_leave_the_inventory_once_it_is_done(
    fleet_of_two: RolloutRequest, tmp_path: Path
) -> None:
    with Journal(tmp_path / "j") as journal:
        hosts = [Candidate("gone", "metal"), Candidate("a", "metal")]
        plan = plan_rollout(NEW, hosts, fleet_of_two.policy)
        inventory = str(fleet_of_two.inventory)
        journal.begin(plan, inventory=inventory, request=fleet_of_two.as_dict())
        with pytest.raises(FsdeployError, match="has no host 'gone'"):
            module.resume(ResumeRequest(), journal=journal)
        journal.move(1, "gone", State.PREFLIGHT)
        journal.move(1, "gone", State.PROMOTED)
        journal.mark_wave(1, 1, "soaked", time.time())
        assert module.resume(ResumeRequest(), journal=journal).exit_code is ExitCode.OK
