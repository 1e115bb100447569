"""Hosts in memory that behave as they are told, and the driver that reaches them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsdeploy.fleet.driver import Looked, StepResult
from fsdeploy.fleet.package import KernelPackage
from fsdeploy.fleet.preflight import Snapshot
from fsdeploy.fleet.transport import Pulse
from fsdeploy.verify.report import CheckResult, Expectation, Outcome

OLD = "2.6.32-431.el6.x86_64"
NEW = "2.6.32-431.el6.fs1.0123abcd.x86_64"
GONE = StepResult(False, False, "Connection refused")


def package(path: Path) -> KernelPackage:
    path.write_bytes(b"rpm")
    return KernelPackage(path, "kernel-fastsocket", NEW, "0" * 64, 8_000_000, 30_000_000)


def well(_host: FakeHost) -> str:
    return ""


@dataclass
class FakeHost:
    """`trial` is what a boot into the new kernel does: up, panic or dead."""

    name: str
    trial: str = "up"
    reached: bool = True
    snapshot: Snapshot | None = None
    stage_fails: str = ""
    arm_fails: str = ""
    promote_fails: str = ""
    failing_checks: Callable[[FakeHost], str] = well
    running: str = OLD
    default: str = OLD
    once: str = ""
    boots: int = 0
    installed: set[str] = field(default_factory=lambda: {OLD})
    tried: str = ""
    hardware: str = "metal"
    checked: int = 0
    deaf: int = 0  # rounds in which it does not answer after a boot
    done: list[str] = field(default_factory=list)  # what really changed it, in order

    def look(self) -> Snapshot:
        return self.snapshot or Snapshot(
            machine="x86_64",
            running=self.running,
            boot_id=str(self.boots),
            python="2.6.6",
            boot_free=400_000_000,
            root_free=4_000_000_000,
            installed=sorted(self.installed),
            rpm="/bin/rpm",
            boot={
                "default_release": self.default,
                "once_release": self.once,
                "tried_release": self.tried,
                "traps": [],
            },
        )

    def boot(self) -> None:
        self.boots += 1
        self.done.append("boot")
        wanted, self.once = self.once or self.default, ""
        self.deaf = 2
        if wanted == NEW and self.trial == "dead":
            self.reached = False
        elif wanted == NEW and self.trial == "panic":
            self.boots += 1
            self.running = self.default
        else:
            self.running = wanted


class FakeDriver:
    """Plays a rollout on fake hosts.

    `point` is called wherever the control process could die: at a call, and after each host of it.
    With a `store` the hosts outlive this process, as real ones do.
    """

    log = Path("/dev/null")

    def __init__(
        self,
        *hosts: FakeHost,
        store: Path | None = None,
        point: Callable[[], None] = lambda: None,
        power: bool = False,
    ) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self._store = store
        self._point = point
        self._power = power
        self.expected: list[Mapping[str, Expectation]] = []
        self._save()

    def __enter__(self) -> FakeDriver:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _save(self) -> None:
        if self._store:
            fresh = self._store.with_suffix(".new")
            fresh.write_bytes(pickle.dumps(list(self.hosts.values())))
            fresh.rename(self._store)

    def _call(self, what: str, hosts: Sequence[str]) -> None:
        self.calls.append((what, tuple(hosts)))
        self._point()

    def count(self, what: str) -> int:
        return sum(call == what for call, _ in self.calls)

    def _each(
        self, what: str, hosts: Sequence[str], do: Callable[[FakeHost], str]
    ) -> Mapping[str, StepResult]:
        self._call(what, hosts)
        results = {}
        for name in hosts:
            host = self.hosts[name]
            if not host.reached or host.deaf:
                results[name] = GONE
                continue
            problem = do(host)
            results[name] = StepResult(not problem, True, problem)
            self._save()
            self._point()
        return results

    def classes(self, hosts: Sequence[str]) -> Mapping[str, str]:
        self._call("classes", hosts)
        return {
            name: self.hosts[name].hardware if self.hosts[name].reached else "" for name in hosts
        }

    def look(self, hosts: Sequence[str]) -> Mapping[str, Looked]:
        self._call("look", hosts)
        return {
            name: Looked(StepResult(True), self.hosts[name].look())
            if self.hosts[name].reached and not self.hosts[name].deaf
            else Looked(GONE)
            for name in hosts
        }

    def commands(self, hosts: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"ansible-playbook {host}" for host in hosts)

    def stage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            # The role asks the host first.
            if not host.stage_fails and NEW not in host.installed:
                host.installed.add(NEW)
                host.done.append("install")
            return host.stage_fails

        return self._each("stage", hosts, do)

    def unstage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if host.running == NEW:
                return "the running kernel is not removed"
            if NEW in host.installed:
                host.installed.discard(NEW)
                host.done.append("remove")
            return ""

        return self._each("unstage", hosts, do)

    def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if not host.arm_fails:
                host.once = host.tried = NEW
                host.done.append("arm")
            return host.arm_fails

        return self._each("arm", hosts, do)

    def disarm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            host.once = host.tried = ""
            return ""

        return self._each("disarm", hosts, do)

    def promote(self, hosts: Sequence[str], release: str) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if release == NEW and host.promote_fails:
                return host.promote_fails
            if release == NEW:
                host.done.append("promote")
            host.default = release
            host.once = host.tried = ""
            return ""

        return self._each("promote", hosts, do)

    def reboot(self, boots: Mapping[str, str]) -> Mapping[str, StepResult]:
        def do(fake: FakeHost) -> str:
            if boots[fake.name] == str(fake.boots):
                fake.boot()
            return ""

        return self._each("reboot", list(boots), do)

    def power_cycle(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(fake: FakeHost) -> str:
            fake.boot()
            return ""

        for name in hosts if self._power else ():
            self.hosts[name].reached = True
        return self._each("power", hosts if self._power else (), do)

    def pulse(self, hosts: Sequence[str]) -> Mapping[str, Pulse | None]:
        self._call("pulse", hosts)
        found: dict[str, Pulse | None] = {}
        for name in hosts:
            host = self.hosts[name]
            host.deaf = max(0, host.deaf - 1)
            answers = host.reached and not host.deaf
            found[name] = Pulse(f"{host.boots}", host.running, 1.0) if answers else None
        self._save()
        return found

    def last_words(self, host: str) -> str:
        self._call("last_words", [host])
        return "Kernel panic - not syncing"

    def verify(
        self, expectations: Mapping[str, Expectation]
    ) -> Mapping[str, Sequence[CheckResult] | None]:
        self._call("verify", list(expectations))
        self.expected.append(expectations)
        found: dict[str, Sequence[CheckResult] | None] = {}
        for name, expected in expectations.items():
            host = self.hosts[name]
            if not host.reached or host.deaf:
                found[name] = None
                continue
            host.checked += 1
            problem = host.failing_checks(host)
            if host.running != expected.release or host.default != expected.default:
                problem = problem or f"runs {host.running}, default {host.default}"
            outcome = Outcome.FAILED if problem else Outcome.PASSED
            found[name] = [CheckResult(name, "kernel", "The kernel.", outcome, True, problem)]
        self._save()
        return found
