"""A control process that is killed (SIGKILL, no clean-up) at every place where it can be.

A child process drives the rollout and kills itself at its nth point: at each call of the driver,
after each host of a call (half a playbook), and before each commit of the journal. The hosts
outlive it in a file. What `resume` then makes of them must be what a rollout that nobody disturbed
makes of them, and nothing may have been done to a host twice.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsdeploy import ui
from fsdeploy.fleet import rollout as module
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollout import (
    ResumeRequest,
    RolloutReport,
    RolloutRequest,
    Walk,
    resume,
    rollout,
)
from fsdeploy.fleet.states import State
from tests.unit.fleet.fakes import NEW, OLD, FakeDriver, FakeHost, package


def sick_on_trial(host: FakeHost) -> str:
    return "oops" if host.running == NEW else ""


def sick_as_default(host: FakeHost) -> str:
    return "oops" if host.default == NEW else ""


def sick_after_a_soak(host: FakeHost) -> str:
    # On trial, after the promotion, after the soak.
    return "oops" if host.running == NEW and len(host.done) >= 4 and host.checked > 2 else ""


@dataclass(frozen=True)
class Scene:
    """Hosts, and how each of them must end."""

    make: Callable[[], list[FakeHost]]
    ends: tuple[State, ...]
    budget: int = 0
    power: bool = False


SCENES = {
    "three waves": Scene(
        lambda: [FakeHost("a"), FakeHost("b"), FakeHost("c"), FakeHost("d", hardware="other")],
        (State.PROMOTED,) * 4,
    ),
    "panic": Scene(
        lambda: [FakeHost("a", trial="panic"), FakeHost("b")], (State.ROLLED_BACK, State.PLANNED)
    ),
    "sick on trial": Scene(
        lambda: [FakeHost("a", failing_checks=sick_on_trial)], (State.ROLLED_BACK,)
    ),
    "sick when promoted": Scene(
        lambda: [FakeHost("a", failing_checks=sick_as_default)], (State.ROLLED_BACK,)
    ),
    "sick after the soak": Scene(
        lambda: [FakeHost("a", failing_checks=sick_after_a_soak), FakeHost("b")],
        (State.ROLLED_BACK, State.PLANNED),
    ),
    "not armed": Scene(lambda: [FakeHost("a", arm_fails="no entry")], (State.ROLLED_BACK,)),
    "lost": Scene(lambda: [FakeHost("a", trial="dead")], (State.LOST,)),
    "power": Scene(lambda: [FakeHost("a", trial="dead")], (State.ROLLED_BACK,), power=True),
    "within the budget": Scene(
        lambda: [FakeHost("a"), FakeHost("b", trial="panic"), FakeHost("c"), FakeHost("d")],
        (State.PROMOTED, State.ROLLED_BACK, State.PROMOTED, State.PROMOTED),
        budget=1,
    ),
    "over the budget": Scene(
        lambda: [FakeHost("a"), FakeHost("b", trial="panic"), FakeHost("c"), FakeHost("d")],
        (State.PROMOTED, State.ROLLED_BACK, State.VERIFIED, State.PLANNED),
    ),
}


class Stage:
    """A folder with a journal and hosts, and the ways to roll out to them."""

    def __init__(self, folder: Path, scene: Scene, patch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        patch.setattr(ui, "_quiet", True)
        self.folder = folder
        self.scene = scene
        self.store = folder / "hosts"
        self.driver = FakeDriver(*scene.make(), store=self.store, power=scene.power)
        names = "".join(f"    {name}:\n" for name in self.driver.hosts)
        self.inventory = folder / "hosts.yml"
        self.inventory.write_text(f"fleet:\n  hosts:\n{names}")
        self.kernel = package(folder / "kernel.rpm")
        patch.setattr(module, "read_package", lambda *_: self.kernel)
        patch.setattr(module, "_driver", lambda *_arguments: self.driver)
        # Waiting takes no time, and its end does not depend on this machine's speed.
        self.waited = 0.0
        walk = functools.partial(
            Walk,
            clock=lambda: self.waited,
            now=lambda: time.time() + self.waited,
            sleep=self.sleep,
        )
        patch.setattr(module, "Walk", walk)

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def begin(self) -> RolloutReport:
        request = RolloutRequest(
            self.inventory,
            self.kernel.path,
            trial_timeout=60,
            policy=Policy(shares=(50.0,), soak=900, budget=self.scene.budget),
        )
        with Journal(self.folder / "journal") as journal:
            return rollout(request, journal=journal)

    def begin_and_die(self, at: int) -> bool:
        """In a child that kills itself at that point. False when there is no such point."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                self._die_at(at)
                self.begin()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0, f"the rollout itself failed, point {at}"
        return False

    def _die_at(self, at: int) -> None:
        sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        left = at

        def point() -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        self.driver._point = point
        opened = Journal.__init__

        def watched(journal: Journal, *arguments: Path) -> None:
            opened(journal, *arguments)
            journal._db.set_trace_callback(
                lambda statement: point() if statement == "COMMIT" else None
            )

        Journal.__init__ = watched  # type: ignore[method-assign,assignment]

    def resume(self) -> RolloutReport | None:
        """In this process, with the hosts as they are. None: not begun, or quite at its end."""
        hosts = pickle.loads(self.store.read_bytes())
        self.driver = FakeDriver(*hosts, store=self.store, power=self.scene.power)
        with Journal(self.folder / "journal") as journal:
            latest = journal.latest()
            if latest is None or latest.ended is not None:
                return None
            return resume(ResumeRequest(), journal=journal)

    def states(self) -> tuple[State, ...]:
        with Journal(self.folder / "journal") as journal:
            return tuple(sorted_by_name(journal))

    def ends(self) -> dict[str, tuple[object, ...]]:
        """What must be the same: what hosts run, will run and have, what was done to them, why."""
        with Journal(self.folder / "journal") as journal:
            sick = {name: "oops" in journal.host(1, name).reason for name in self.driver.hosts}
        return {
            name: (host.running, host.default, host.once, host.installed, host.done, sick[name])
            for name, host in self.driver.hosts.items()
        }


def sorted_by_name(journal: Journal) -> Iterator[State]:
    return (record.state for record in sorted(journal.hosts(1), key=lambda record: record.name))


@pytest.mark.parametrize("name", SCENES)
def test_killed_anywhere_a_resume_ends_the_same_and_does_nothing_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = SCENES[name]
    whole = Stage(tmp_path / "whole", scene, monkeypatch)
    whole.begin()
    assert whole.states() == scene.ends
    wanted = whole.ends()
    seen: set[State] = set()
    for at in range(1000):
        stage = Stage(tmp_path / str(at), scene, monkeypatch)
        if not stage.begin_and_die(at):
            break
        with Journal(stage.folder / "journal") as journal:
            if journal.latest() is not None:
                seen.update(record.state for record in journal.hosts(1))
        if stage.resume() is None and not stage.states():
            assert all(not host.done for host in stage.driver.hosts.values()), at
            continue
        assert stage.states() == scene.ends, f"killed at point {at}"
        assert stage.ends() == wanted, f"killed at point {at}"
    assert at > 10
    if name == "three waves":
        way = [state for state in State if state not in (State.REFUSED, State.ROLLED_BACK)]
        assert seen == set(way) - {State.LOST}


@pytest.mark.parametrize("runs", [OLD, NEW])
def test_a_host_that_booted_by_itself_after_the_arming_is_found_out(
    runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Armed, killed before the journal knew it, and then the host lost its power."""
    trial = "up" if runs == NEW else "panic"
    scene = Scene(lambda: [FakeHost("a", trial=trial)], ())
    for at in range(1000):
        stage = Stage(tmp_path / str(at), scene, monkeypatch)
        assert stage.begin_and_die(at)
        (host,) = pickle.loads(stage.store.read_bytes())
        with Journal(stage.folder / "journal") as journal:
            staged = journal.latest() and journal.host(1, "a").state is State.STAGED
        if staged and host.once == NEW:
            break
    host.boot()
    host.deaf = 0
    stage.store.write_bytes(pickle.dumps([host]))
    report = stage.resume()
    assert report
    (outcome,) = report.hosts
    assert outcome.kernel == runs
    assert outcome.state is (State.PROMOTED if runs == NEW else State.ROLLED_BACK)
    assert stage.driver.hosts["a"].done.count("arm") == 1
    assert stage.driver.hosts["a"].done.count("boot") == 1
    if runs == OLD:
        assert "did not stay up" in outcome.reason
