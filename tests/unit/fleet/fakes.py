"""Hosts in memory that behave as they are told, and the driver that reaches them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    failing_checks: Callable[[FakeHost], str] = lambda _: ""
    running: str = OLD
    default: str = OLD
    once: str = ""
    boots: int = 0
    installed: set[str] = field(default_factory=lambda: {OLD})
    deaf: int = 0  # rounds in which it does not answer after a boot

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
            boot={"default_release": self.default, "once_release": self.once, "traps": []},
        )

    def boot(self) -> None:
        self.boots += 1
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
    """Plays a rollout on fake hosts."""

    def __init__(self, *hosts: FakeHost) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def _call(self, what: str, hosts: Sequence[str]) -> None:
        self.calls.append((what, tuple(hosts)))

    def count(self, what: str) -> int:
        return sum(call == what for call, _ in self.calls)

    def _each(
        self, what: str, hosts: Sequence[str], do: Callable[[FakeHost], str]
    ) -> Mapping[str, StepResult]:
        self._call(what, hosts)
        results = {}
        for name in hosts:
            host = self.hosts[name]
            if not host.reached:
                results[name] = GONE
                continue
            problem = do(host)
            results[name] = StepResult(not problem, True, problem)
        return results

    def look(self, hosts: Sequence[str]) -> Mapping[str, Looked]:
        self._call("look", hosts)
        return {
            name: Looked(StepResult(True), self.hosts[name].look())
            if self.hosts[name].reached
            else Looked(GONE)
            for name in hosts
        }

    def commands(self, hosts: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"ansible-playbook {host}" for host in hosts)

    def stage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if not host.stage_fails:
                host.installed.add(NEW)
            return host.stage_fails

        return self._each("stage", hosts, do)

    def unstage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if host.running == NEW:
                return "the running kernel is not removed"
            host.installed.discard(NEW)
            return ""

        return self._each("unstage", hosts, do)

    def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if not host.arm_fails:
                host.once = NEW
            return host.arm_fails

        return self._each("arm", hosts, do)

    def disarm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            host.once = ""
            return ""

        return self._each("disarm", hosts, do)

    def promote(self, hosts: Sequence[str], release: str) -> Mapping[str, StepResult]:
        def do(host: FakeHost) -> str:
            if release == NEW and host.promote_fails:
                return host.promote_fails
            host.default = release
            host.once = ""
            return ""

        return self._each("promote", hosts, do)

    def reboot(self, host: str) -> StepResult:
        def do(fake: FakeHost) -> str:
            fake.boot()
            return ""

        return self._each("reboot", [host], do)[host]

    def pulse(self, hosts: Sequence[str]) -> Mapping[str, Pulse | None]:
        self._call("pulse", hosts)
        found: dict[str, Pulse | None] = {}
        for name in hosts:
            host = self.hosts[name]
            host.deaf = max(0, host.deaf - 1)
            answers = host.reached and not host.deaf
            found[name] = Pulse(f"{host.boots}", host.running, 1.0) if answers else None
        return found

    def last_words(self, host: str) -> str:
        self._call("last_words", [host])
        return "Kernel panic - not syncing"

    def verify(
        self, expectations: Mapping[str, Expectation]
    ) -> Mapping[str, Sequence[CheckResult] | None]:
        self._call("verify", list(expectations))
        found: dict[str, Sequence[CheckResult] | None] = {}
        for name, expected in expectations.items():
            host = self.hosts[name]
            if not host.reached:
                found[name] = None
                continue
            problem = host.failing_checks(host)
            if host.running != expected.release or host.default != expected.default:
                problem = problem or f"runs {host.running}, default {host.default}"
            outcome = Outcome.FAILED if problem else Outcome.PASSED
            found[name] = [CheckResult(name, "kernel", "The kernel.", outcome, True, problem)]
        return found


class CutOff:
    """A driver that is interrupted at its nth call: before it, or after it was carried out."""

    def __init__(self, driver: FakeDriver, at: int, *, after: bool) -> None:
        self._driver = driver
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)

        def call(*args: object) -> object:
            if self._left == 0 and not self._after:
                raise KeyboardInterrupt
            answer = method(*args)
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            return answer

        return call
