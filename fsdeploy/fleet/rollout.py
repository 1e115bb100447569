# SPDX-License-Identifier: GPL-2.0-only
"""Takes hosts through a rollout: decides, records, and lets a driver do.

Nothing here knows Ansible or SSH. What a host may do next follows from its state in the journal
alone; a rollout that was cut off goes on from there with the same code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.boot import await_boot
from fsdeploy.fleet.driver import Driver, StepResult
from fsdeploy.fleet.inventory import Inventory, load_inventory
from fsdeploy.fleet.journal import FINAL, HostRecord, Journal, State
from fsdeploy.fleet.package import KernelPackage, read_package
from fsdeploy.fleet.plan import RolloutPlan, plan_rollout
from fsdeploy.fleet.preflight import Snapshot, default_release, judge, python_finding
from fsdeploy.fleet.transport import Pulse
from fsdeploy.verify.report import Expectation, failures


@dataclass(frozen=True)
class RolloutRequest:
    """What an operator asks for. `trial_timeout` is how long a host may take to come back."""

    inventory: Path
    kernel: Path
    limit: tuple[str, ...] = ()
    dry_run: bool = False
    trial_timeout: float = 600.0
    trial_arguments: tuple[str, ...] = ()
    resume: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        return {
            **asdict(self),
            "inventory": str(self.inventory.resolve()),
            "kernel": str(self.kernel.resolve()),
        }


@dataclass(frozen=True)
class HostOutcome:
    """Where a host ended. `kernel` is what it runs, `reached` whether it answered at the end."""

    host: str
    state: State
    kernel: str
    reason: str
    reached: bool = True
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RolloutReport:
    """The end of a rollout, one outcome a host."""

    release: str
    hosts: tuple[HostOutcome, ...]
    seconds: float
    dry_run: bool = False
    number: int = 0
    log: Path | None = None
    commands: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host does not answer, else 1 when one did not get there, else 0."""
        if any(not host.reached or host.state is State.LOST for host in self.hosts):
            return ExitCode.UNREACHABLE
        good = {State.PLANNED} if self.dry_run else {State.PROMOTED}
        if any(host.state not in good for host in self.hosts):
            return ExitCode.CHECK_FAILED
        return ExitCode.OK

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "rollout": self.number,
            "release": self.release,
            "dry_run": self.dry_run,
            "seconds": round(self.seconds, 1),
            "exit_code": int(self.exit_code),
            "log": str(self.log) if self.log else None,
            "commands": list(self.commands),
            "hosts": [
                {
                    "host": host.host,
                    "state": str(host.state),
                    "kernel": host.kernel,
                    "reason": host.reason,
                    "reached": host.reached,
                    "warnings": list(host.warnings),
                }
                for host in self.hosts
            ],
        }


class Walk:
    """One rollout under way."""

    def __init__(
        self,
        driver: Driver,
        journal: Journal,
        number: int,
        package: KernelPackage,
        *,
        trial_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._number = number
        self._package = package
        self._trial_timeout = trial_timeout
        self._clock = clock
        self._sleep = sleep
        self._kernels: dict[str, str] = {}
        self._silent: set[str] = set()
        self._warnings: dict[str, tuple[str, ...]] = {}

    # What is known of hosts.

    def _record(self, host: str) -> HostRecord:
        return self._journal.host(self._number, host)

    def _in_state(self, hosts: Sequence[str], *states: State) -> list[str]:
        return [
            host
            for host in hosts
            if host not in self._silent and self._record(host).state in states
        ]

    def _move(self, host: str, state: State, reason: str = "", **facts: object) -> None:
        self._journal.move(self._number, host, state, reason, facts)
        ui.note(f"{host}: {state}" + (f": {reason}" if reason else ""))

    def _unanswered(self, host: str, reason: str) -> None:
        """The host does not answer and nothing is at stake: it keeps its state."""
        self._silent.add(host)
        self._move(host, self._record(host).state, reason)

    def outcomes(self, hosts: Sequence[str]) -> tuple[HostOutcome, ...]:
        """Where hosts stand."""
        records = [self._record(host) for host in hosts]
        return tuple(
            HostOutcome(
                record.name,
                record.state,
                self._kernels.get(record.name, ""),
                record.reason,
                record.name not in self._silent,
                self._warnings.get(record.name, ()),
            )
            for record in records
        )

    # The steps.

    def run(self, plan: RolloutPlan) -> None:
        """All waves; a wave in which a host does not get there is the last one."""
        for index, wave in enumerate(plan.waves):
            open_hosts = [host for host in wave.hosts if self._record(host).state not in FINAL]
            if open_hosts:
                with ui.step(f"{wave.name}: {', '.join(open_hosts)}"):
                    self.advance(open_hosts)
            failed = [host for host in wave.hosts if self._record(host).state != State.PROMOTED]
            later = [host for following in plan.waves[index + 1 :] for host in following.hosts]
            waiting = [host for host in later if self._record(host).state not in FINAL]
            if failed and waiting:
                for host in waiting:
                    self._move(
                        host,
                        self._record(host).state,
                        f"not begun: {failed[0]} did not get through",
                    )
                return

    def find_again(self, hosts: Sequence[str]) -> None:
        """Lost hosts that answer again stand where a trial boot has ended."""
        lost = [host for host in hosts if self._record(host).state is State.LOST]
        for host, pulse in self._driver.pulse(lost).items():
            if pulse:
                self._move(host, State.TRIAL, "answers again")

    def advance(self, hosts: Sequence[str]) -> None:
        """Take hosts from where they stand to an end."""
        self._preflight(self._in_state(hosts, State.PLANNED, State.PREFLIGHT))
        self._stage(self._in_state(hosts, State.PREFLIGHT))
        self._arm(self._in_state(hosts, State.STAGED))
        self._boot(self._in_state(hosts, State.ARMED, State.TRIAL))
        self._verify(self._in_state(hosts, State.TRIAL))
        self._promote(self._in_state(hosts, State.VERIFIED))

    def _preflight(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("preflight"):
            looked = self._driver.look(hosts)
        for host in hosts:
            look = looked.get(host)
            if look is None or not look.result.reached:
                self._unanswered(host, _silence(look.result if look else None))
                continue
            if look.snapshot is None:
                self._move(host, State.REFUSED, look.result.message)
                continue
            snapshot = look.snapshot
            self._kernels[host] = snapshot.running
            self._begin(host, snapshot)

    def _begin(self, host: str, snapshot: Snapshot) -> None:
        release = self._package.release
        if snapshot.running == release and default_release(snapshot.boot) == release:
            # The kernel to fall back to is the one that the rollout before it found.
            earlier = self._journal.latest_touched(host)
            known = {"previous": earlier.facts["previous"]} if earlier else {}
            self._move(host, State.PREFLIGHT, **known)
            self._move(host, State.PROMOTED, f"already runs {release} by default, nothing changed")
            return
        findings = judge(snapshot, self._package)
        old = python_finding(snapshot.python)
        refusals = [item for item in [*findings, *([old] if old else [])] if item.refused]
        self._warnings[host] = tuple(str(item) for item in findings if not item.refused)
        for text in self._warnings[host]:
            ui.warn(f"{host}: {text}")
        if refusals:
            self._move(host, State.REFUSED, "; ".join(str(item) for item in refusals))
            return
        self._move(
            host,
            State.PREFLIGHT,
            previous=snapshot.running,
            installed_before=release in snapshot.installed,
        )

    def _stage(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("staging: copy, check, install beside the running kernel"):
            results = self._driver.stage(hosts)
        for host in hosts:
            result = results.get(host)
            if result is None or not result.reached:
                self._unanswered(host, _silence(result))
            elif result.ok:
                self._move(host, State.STAGED)
            else:
                self._move(host, State.ROLLED_BACK, f"not installed: {result.message}")

    def _arm(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("arming: the boot loader starts the new kernel once"):
            pulses = self._driver.pulse(hosts)
            results = self._driver.arm(hosts)
        failed = []
        for host in hosts:
            result, pulse = results.get(host), pulses.get(host)
            if result is None or not result.reached or pulse is None:
                self._unanswered(host, _silence(result))
            elif result.ok:
                self._move(host, State.ARMED, boot_id=pulse.boot_id)
            else:
                failed.append((host, result.message))
        if failed:
            self._clean_up([host for host, _ in failed])
        for host, message in failed:
            self._move(host, State.ROLLED_BACK, f"not armed: {message}")

    def _boot(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        began = self._clock()
        with ui.step("trial boot"):
            now = self._driver.pulse(hosts)
            for host in hosts:
                record = self._record(host)
                pulse = now.get(host)
                if record.state is State.TRIAL and (
                    pulse is None or pulse.boot_id != record.facts.get("boot_id")
                ):
                    continue  # resumed: it was told already and is down or up again
                self._move(host, State.TRIAL)
                told = self._driver.reboot(host)
                if not told.ok:
                    ui.warn(f"{host}: the command to boot did not get through: {told.message}")
            before = {host: str(self._record(host).facts.get("boot_id")) for host in hosts}
            pulses = self._await_boot(before)
        for host in hosts:
            self._judge_boot(host, pulses.get(host), self._clock() - began)

    def _judge_boot(self, host: str, pulse: Pulse | None, seconds: float) -> None:
        """After the trial boot: stays in `trial` when the wanted kernel runs."""
        if pulse is None:
            pulse_now = self._driver.pulse([host]).get(host)
            if pulse_now and pulse_now.boot_id == self._record(host).facts.get("boot_id"):
                self._kernels[host] = pulse_now.release
                self._clean_up([host])
                self._move(host, State.ROLLED_BACK, "it did not boot although it was told to")
                return
            self._silent.add(host)
            self._move(
                host,
                State.LOST,
                f"did not come back within {ui.duration(self._trial_timeout)} of the trial boot;"
                " look at its console, switch its power off and on, then"
                " fsdeploy rollout --resume",
            )
            return
        self._kernels[host] = pulse.release
        if pulse.release == self._package.release:
            return
        if pulse.release != self._record(host).facts.get("previous"):
            wanted = self._package.release
            self._send_back(host, f"it came up with {pulse.release}, wanted is {wanted}")
            return
        words = self._driver.last_words(host)
        self._clean_up([host])
        self._move(
            host,
            State.ROLLED_BACK,
            f"the trial kernel did not stay up: the host came back on {pulse.release} by itself"
            f" after {ui.duration(seconds)}" + (f"; last words: {words}" if words else ""),
        )

    def _await_boot(self, before: Mapping[str, str]) -> dict[str, Pulse | None]:
        return await_boot(
            self._driver.pulse,
            before,
            self._trial_timeout,
            tick=self._journal.renew,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _expect(self, host: str, default: str) -> Expectation:
        return Expectation(
            release=self._package.release,
            default=default,
            previous=str(self._record(host).facts.get("previous", "")),
            patched=self._package.is_patched,
        )

    def _verify(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("verification on the trial kernel"):
            previous = {host: str(self._record(host).facts.get("previous")) for host in hosts}
            found = self._driver.verify(
                {host: self._expect(host, previous[host]) for host in hosts}
            )
        for host in hosts:
            checks = found.get(host)
            if checks is None:
                self._send_back(host, "the host stopped to answer on the trial kernel")
                continue
            failed = failures(checks)
            if failed:
                text = "; ".join(check.message or check.title for check in failed[:3])
                self._send_back(host, f"a check failed on the trial kernel: {text}")
            else:
                self._move(host, State.VERIFIED)

    def _promote(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        release = self._package.release
        with ui.step("promotion: the new kernel becomes the default"):
            results = self._driver.promote(hosts, release)
            good = [host for host in hosts if (result := results.get(host)) and result.ok]
            found = self._driver.verify({host: self._expect(host, release) for host in good})
        for host in hosts:
            result, checks = results.get(host), found.get(host)
            if result is None or not result.reached:
                self._unanswered(host, _silence(result))
            elif not result.ok:
                self._send_back(host, f"not promoted: {result.message}")
            elif checks is None:
                self._unanswered(host, "did not answer when the promotion was verified")
            elif failed := failures(checks):
                text = failed[0].message or failed[0].title
                self._send_back(host, f"a check failed after the promotion: {text}")
            else:
                self._move(host, State.PROMOTED)

    # The way back.

    def _send_back(self, host: str, reason: str) -> None:
        """Bring a host that runs the trial kernel back to the one before."""
        previous = str(self._record(host).facts.get("previous"))
        with ui.step(f"{host}: back to {previous}"):
            pulse = self._driver.pulse([host]).get(host)
            if pulse and pulse.release != previous:
                # Its default may be the new kernel already.
                self._driver.promote([host], previous)
                self._driver.reboot(host)
            if pulse is None or pulse.release != previous:
                boot_id = pulse.boot_id if pulse else ""
                pulse = self._await_boot({host: boot_id})[host]
            if pulse and pulse.release == self._package.release:
                # It was silent for a while only: it still runs the trial kernel.
                self._driver.reboot(host)
                pulse = self._await_boot({host: pulse.boot_id})[host]
        if pulse is None:
            self._silent.add(host)
            self._move(host, State.LOST, f"{reason}; then it did not come back")
            return
        self._kernels[host] = pulse.release
        self._clean_up([host])
        self._move(host, State.ROLLED_BACK, reason)

    def _clean_up(self, hosts: Sequence[str]) -> None:
        """Leave boot loader and packages as they were; what cannot be done now is told."""
        results: list[Mapping[str, StepResult]] = [self._driver.disarm(hosts)]
        ours = [host for host in hosts if not self._record(host).facts.get("installed_before")]
        if ours:
            results.append(self._driver.unstage(ours))
        for part in results:
            for host, result in part.items():
                if not result.ok:
                    ui.warn(f"{host}: not all was cleaned up: {result.message}")


def _silence(result: StepResult | None) -> str:
    detail = result.message if result else ""
    return "does not answer over SSH" + (f": {detail}" if detail else "")


def _dry_run(driver: Driver, plan: RolloutPlan, package: KernelPackage) -> tuple[HostOutcome, ...]:
    looked = driver.look(plan.hosts)
    outcomes = []
    for host in plan.hosts:
        look = looked.get(host)
        if look is None or not look.result.reached:
            reason = _silence(look.result if look else None)
            outcomes.append(HostOutcome(host, State.PLANNED, "", reason, reached=False))
            continue
        if look.snapshot is None:
            outcomes.append(HostOutcome(host, State.REFUSED, "", look.result.message))
            continue
        findings = judge(look.snapshot, package)
        refusals = [str(item) for item in findings if item.refused]
        outcomes.append(
            HostOutcome(
                host,
                State.REFUSED if refusals else State.PLANNED,
                look.snapshot.running,
                "; ".join(refusals) or f"would try {package.release}",
                warnings=tuple(str(item) for item in findings if not item.refused),
            )
        )
    return tuple(outcomes)


def _to_resume(journal: Journal, inventory: Inventory, release: str) -> int:
    record = journal.latest()
    open_hosts = record and [
        host
        for host in journal.hosts(record.number)
        if host.state not in FINAL or host.state is State.LOST
    ]
    if record is None or not open_hosts:
        raise FsdeployError(
            "there is no rollout to resume",
            hint="fsdeploy status shows the last one; start a new one without --resume",
        )
    if record.release != release:
        raise FsdeployError(
            f"the rollout to resume brings {record.release}, the package given is {release}",
            hint=f"fsdeploy rollout --resume --kernel {record.request.get('kernel')} …",
        )
    for host in open_hosts:
        inventory.host(host.name)
    return record.number


def rollout(
    request: RolloutRequest,
    *,
    driver: Driver | None = None,
    journal: Journal | None = None,
) -> RolloutReport:
    """Bring a kernel to hosts; see fsdeploy/fleet/journal.py for the way of a host.

    FsdeployError for what is wrong with the request itself; what happens on hosts is in the report.
    """
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    package = read_package(request.kernel)
    plan = plan_rollout(package.release, inventory.names)
    with contextlib.ExitStack() as stack:
        log: Path | None = None
        if driver is None:
            from fsdeploy.fleet.drive import FleetDriver

            fleet = stack.enter_context(
                FleetDriver(inventory, package=package, trial_arguments=request.trial_arguments)
            )
            driver, log = fleet, fleet.log
        if request.dry_run:
            outcomes = _dry_run(driver, plan, package)
            fit = [host.host for host in outcomes if host.state is State.PLANNED and host.reached]
            return RolloutReport(
                package.release,
                outcomes,
                time.monotonic() - began,
                dry_run=True,
                log=log,
                commands=driver.commands(fit),
            )
        book = journal or stack.enter_context(Journal())
        stack.enter_context(book.lock())
        if request.resume:
            number = _to_resume(book, inventory, package.release)
            names = tuple(host.name for host in book.hosts(number))
            plan = plan_rollout(package.release, names)
            book.reopen(number)
        else:
            number = book.begin(
                inventory=str(inventory.path),
                release=package.release,
                hosts=plan.hosts,
                request=request.as_dict(),
            )
        walk = Walk(driver, book, number, package, trial_timeout=request.trial_timeout)
        if request.resume:
            walk.find_again(plan.hosts)
        walk.run(plan)
        book.finish(number)
        return RolloutReport(
            package.release,
            walk.outcomes(plan.hosts),
            time.monotonic() - began,
            number=number,
            log=log,
        )
