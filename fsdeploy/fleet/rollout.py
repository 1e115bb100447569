# SPDX-License-Identifier: GPL-2.0-only
"""Takes hosts through a rollout: decides, records, and lets a driver do.

`Walk` knows neither Ansible nor SSH. What a host may do next follows from its state in the journal
and from what the host says (standing.py); a rollout that was cut off goes on from there with the
same code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.boot import await_boot
from fsdeploy.fleet.drive import FleetDriver
from fsdeploy.fleet.driver import Driver, Looked, StepResult
from fsdeploy.fleet.gate import Standpoint, canary_missing, over_budget
from fsdeploy.fleet.inventory import Inventory, load_inventory
from fsdeploy.fleet.journal import HostRecord, Journal, RolloutRecord, WaveRecord
from fsdeploy.fleet.package import KernelPackage, read_package
from fsdeploy.fleet.plan import Candidate, Policy, RolloutPlan, Wave, plan_rollout
from fsdeploy.fleet.preflight import Snapshot, default_release, judge, python_finding
from fsdeploy.fleet.standing import Seen, Standing, stand
from fsdeploy.fleet.states import FINAL, HALF_WAY, State
from fsdeploy.fleet.transport import Pulse
from fsdeploy.fleet.tuning import expected_settings
from fsdeploy.verify.report import Expectation, failures

_SOAK_TELL_SECONDS = 60.0

# A connection may be lost for many reasons. What the next step waits for is asked for this long.
_LOOK_SECONDS = 60.0

# A host in one of these was looked at and may have got further than the journal knows.
_UNDER_WAY = frozenset({State.PREFLIGHT, State.STAGED, *HALF_WAY})


@dataclass(frozen=True)
class RolloutRequest:
    """What an operator asks for. `trial_timeout` is how long a host may take to come back."""

    inventory: Path
    kernel: Path
    key: Path | None = None
    repository: str = ""
    limit: tuple[str, ...] = ()
    dry_run: bool = False
    trial_timeout: float = 600.0
    trial_arguments: tuple[str, ...] = ()
    power_command: str = ""
    policy: Policy = field(default_factory=Policy)

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        return {
            **asdict(self),
            "inventory": str(self.inventory.resolve()),
            "kernel": str(self.kernel.resolve()),
            "key": str(self.key.resolve()) if self.key else "",
        }


@dataclass(frozen=True)
class ResumeRequest:
    """How to go on with the last rollout; None: as it was begun."""

    inventory: Path | None = None
    kernel: Path | None = None
    key: Path | None = None
    repository: str | None = None
    trial_timeout: float | None = None
    power_command: str | None = None
    budget: int | None = None


@dataclass(frozen=True)
class HostOutcome:
    """Where a host ended. `kernel` is what it runs, `reached` whether it answered at the end."""

    host: str
    state: State
    kernel: str
    reason: str
    reached: bool = True
    warnings: tuple[str, ...] = ()
    wave: int = 1


@dataclass(frozen=True)
class RolloutReport:
    """The end of a rollout, one outcome a host. `stopped` says why not all of it was done."""

    plan: RolloutPlan
    hosts: tuple[HostOutcome, ...]
    seconds: float
    dry_run: bool = False
    number: int = 0
    log: Path | None = None
    commands: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def release(self) -> str:
        """What was rolled out."""
        return self.plan.release

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host does not answer, else 1 when one did not get there, else 0."""
        if any(not host.reached or host.state is State.LOST for host in self.hosts):
            return ExitCode.UNREACHABLE
        good = {State.PLANNED} if self.dry_run else {State.PROMOTED}
        if self.stopped or any(host.state not in good for host in self.hosts):
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
            "stopped": self.stopped,
            "budget": self.plan.budget,
            "waves": [
                {
                    "number": wave.number,
                    "name": wave.name,
                    "soak": wave.soak,
                    "hosts": list(wave.names),
                    "classes": sorted({host.hardware for host in wave.hosts}),
                }
                for wave in self.plan.waves
            ],
            "hosts": [
                {
                    "host": host.host,
                    "wave": host.wave,
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
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._driver = driver
        self._journal = journal
        self._number = number
        self._package = package
        self._trial_timeout = trial_timeout
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._kernels: dict[str, str] = {}
        self._defaults: dict[str, str] = {}
        self._silent: set[str] = set()
        self._switched: set[str] = set()
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
        """The host does not answer: it keeps its state."""
        self._silent.add(host)
        self._move(host, self._record(host).state, reason)

    def outcomes(self, stopped: str = "") -> tuple[HostOutcome, ...]:
        """Where hosts stand."""
        return tuple(
            HostOutcome(
                record.name,
                record.state,
                self._kernels.get(record.name, ""),
                record.reason or self._not_done(record, stopped),
                record.name not in self._silent,
                self._warnings.get(record.name, ()),
                record.wave,
            )
            for record in self._journal.hosts(self._number)
        )

    @staticmethod
    def _not_done(record: HostRecord, stopped: str) -> str:
        if not stopped or record.state in FINAL:
            return ""
        return f"{'not begun' if record.state is State.PLANNED else 'left here'}: {stopped}"

    def _standpoints(self, waves: Sequence[WaveRecord]) -> list[Standpoint]:
        return [
            Standpoint(
                record.name,
                record.state,
                record.reason,
                record.hardware,
                wave.canary and wave.ended is not None,
                record.name in self._silent,
                bool(record.facts.get("restarted")),
            )
            for wave in waves
            for record in self._journal.hosts(self._number, wave=wave.number)
        ]

    def _over_budget(self, waves: Sequence[WaveRecord]) -> str:
        """Why nothing more may be begun in the wave at work; empty when it may."""
        budget = self._journal.rollout(self._number).budget
        return over_budget(self._standpoints(waves), budget)

    def _stop(self, waves: Sequence[WaveRecord]) -> str:
        """Why no wave may follow these; empty when one may."""
        return self._over_budget(waves) or canary_missing(self._standpoints(waves))

    # The waves.

    def run(self) -> str:
        """All waves, from where they stand. Returns why it stopped before the last, or nothing."""
        self._send_back(
            {
                record.name: str(record.facts["going_back"])
                for record in self._journal.hosts(self._number)
                if record.facts.get("going_back")
                and record.state not in (State.ROLLED_BACK, State.LOST)
            }
        )
        waves = self._journal.waves(self._number)
        # Whatever comes next, no host stays half way: not even when the budget is used up.
        for place in range(len(waves)):
            records = self._journal.hosts(self._number, wave=waves[place].number)
            if any(record.state in HALF_WAY for record in records):
                with ui.step(f"wave {waves[place].number}: going on where it was cut off"):
                    self.advance(self._open(records), waves[: place + 1])
        for place in range(len(waves)):
            stopped = self._run_wave(place)
            if stopped and self._open(self._journal.hosts(self._number)):
                ui.warn(f"the rollout stops: {stopped}")
                return stopped
        return ""

    def _open(self, records: Sequence[HostRecord]) -> list[str]:
        """Hosts with something left to do that answer, as far as is known."""
        return [
            record.name
            for record in records
            if record.state not in FINAL and record.name not in self._silent
        ]

    def _run_wave(self, place: int) -> str:
        """One wave; before it, what is left of the soak of the wave before."""
        waves = self._journal.waves(self._number)
        wave, before = waves[place], waves[:place]
        records = self._journal.hosts(self._number, wave=wave.number)
        open_hosts = self._open(records)
        if not open_hosts:
            if wave.ended is None:
                # Cut off between its last host and this note: its soak begins now.
                self._journal.mark_wave(self._number, wave.number, "ended", self._now())
            return self._stop(self._journal.waves(self._number)[: place + 1])
        for earlier in before:
            self._soak(earlier)
        stopped = self._stop(before)
        if stopped:
            return stopped
        if wave.began is None:
            self._journal.mark_wave(self._number, wave.number, "began", self._now())
        with ui.step(f"wave {wave.number} of {len(waves)}, {wave.name}: {_some(open_hosts)}"):
            stopped = self.advance(open_hosts, waves[: place + 1])
        if not stopped:
            self._journal.mark_wave(self._number, wave.number, "ended", self._now())
            stopped = self._stop(self._journal.waves(self._number)[: place + 1])
        return stopped

    def _soak(self, wave: WaveRecord) -> None:
        """Wait until a wave has run long enough, then see that its hosts still do."""
        if wave.soaked is not None or not wave.soak or wave.ended is None:
            return
        # With the parts before it, which have no soak of their own.
        group = [wave.number]
        for earlier in reversed(self._journal.waves(self._number)[: wave.number - 1]):
            if earlier.soak:
                break
            group.append(earlier.number)
        promoted = [
            record.name
            for number in group
            for record in self._journal.hosts(self._number, wave=number)
            if record.state is State.PROMOTED and "boot_id_after" in record.facts
        ]
        until = wave.ended + wave.soak
        if promoted:
            with ui.step(f"soak of wave {wave.number}, {ui.duration(wave.soak)} in all"):
                while (left := until - self._now()) > 0:
                    ui.note(f"{ui.duration(left)} left")
                    self._sleep(min(left, _SOAK_TELL_SECONDS))
                self._look_after(promoted)
        self._journal.mark_wave(self._number, wave.number, "soaked", self._now())

    def _look_after(self, hosts: Sequence[str]) -> None:
        """After a soak: hosts must answer, run what they ran, and pass the checks again."""
        pulses = self._await_boot(dict.fromkeys(hosts, ""))
        for host in hosts:
            pulse = pulses[host]
            if pulse is None:
                self._lose(host, "stopped to answer during the soak")
            elif pulse.boot_id != self._record(host).facts["boot_id_after"]:
                words = self._driver.last_words(host)
                reason = "booted again during the soak, not by fsdeploy"
                reason += f"; last words: {words}" if words else ""
                self._move(host, State.PROMOTED, reason, restarted=True)
        answering = [host for host in hosts if pulses[host]]
        release = self._package.release
        found = self._driver.verify({host: self._expect(host, release) for host in answering})
        bad = {}
        for host in answering:
            checks = found.get(host)
            if checks is None:
                bad[host] = "stopped to answer after the soak"
            elif failed := failures(checks):
                bad[host] = f"a check failed after the soak: {failed[0].message or failed[0].title}"
        self._send_back(bad)

    def find_again(self) -> None:
        """Lost hosts that answer again, if need be after their power was switched."""
        lost = [
            record.name
            for record in self._journal.hosts(self._number)
            if record.state is State.LOST
        ]
        if not lost:
            return
        with ui.step(f"looking for lost hosts: {_some(lost)}"):
            pulses = dict(self._driver.pulse(lost))
            pulses.update(self._power_cycle([host for host in lost if not pulses.get(host)]))
        for host in lost:
            if pulses.get(host):
                self._move(host, State.TRIAL, "answers again")
            else:
                self._silent.add(host)

    # The steps.

    def advance(self, hosts: Sequence[str], waves: Sequence[WaveRecord]) -> str:
        """Take hosts from where they stand to an end. Returns why it stopped before, or nothing.

        Over the budget nothing is begun any more; what is armed is taken back, what boots is
        waited for, and nothing is promoted.
        """
        self._take_stock(hosts)
        stopped = self._over_budget(waves)
        if not stopped:
            self._stage(self._in_state(hosts, State.PREFLIGHT))
            stopped = self._over_budget(waves)
        if not stopped:
            self._arm(self._in_state(hosts, State.STAGED))
            stopped = self._over_budget(waves)
        if stopped:
            self._stand_down(self._in_state(hosts, State.ARMED))
        self._boot(self._in_state(hosts, State.ARMED, State.TRIAL))
        self._verify(self._in_state(hosts, State.TRIAL))
        stopped = self._over_budget(waves)
        if not stopped:
            self._promote(self._in_state(hosts, State.VERIFIED))
            stopped = self._over_budget(waves)
        return stopped

    def _take_stock(self, hosts: Sequence[str]) -> None:
        """Look at the hosts: new ones are judged, of the others it is found where they stand."""
        with ui.step("preflight"):
            looked = self._driver.look(hosts)
            under_way = self._in_state(hosts, *_UNDER_WAY)
            dumb = [host for host in under_way if not _snapshot(looked, host)]
            pulses = self._driver.pulse(dumb) if dumb else {}
        fell: dict[str, Pulse | None] = {}
        with self._journal.together():
            for host in hosts:
                record, look = self._record(host), looked.get(host)
                snapshot = _snapshot(looked, host)
                seen = _seen(snapshot, pulses.get(host))
                if record.state in (State.PLANNED, State.PREFLIGHT):
                    self._preflight(host, look)
                elif seen:
                    if self._find_standing(record, seen).fell:
                        fell[host] = Pulse(seen.boot_id, seen.running, 0.0)
                    elif self._record(host).state is State.PREFLIGHT:
                        self._preflight(host, look)
                elif record.state is not State.TRIAL:
                    # One on trial may be in the middle of its boot: that is waited for.
                    self._unanswered(host, _silence(look.result if look else None))
        self._judge_boots(fell)

    def _preflight(self, host: str, look: Looked | None) -> None:
        if look is None or not look.result.reached:
            self._unanswered(host, _silence(look.result if look else None))
        elif look.snapshot is None:
            self._move(host, State.REFUSED, look.result.message)
        else:
            self._kernels[host] = look.snapshot.running
            self._begin(host, look.snapshot)

    def _begin(self, host: str, snapshot: Snapshot) -> None:
        release = self._package.release
        facts = self._record(host).facts
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
            boot_id=snapshot.boot_id,
            # Looked at a second time, the package may be there because we brought it.
            installed_before=facts.get("installed_before", release in snapshot.installed),
        )

    def _find_standing(self, record: HostRecord, seen: Seen) -> Standing:
        """Bring the journal to where the host says it is; see standing.py."""
        host = record.name
        self._kernels[host] = seen.running
        self._defaults[host] = seen.default or ""
        standing = stand(record.state, record.facts, self._package.release, seen)
        way = [State.STAGED, State.ARMED, State.TRIAL]
        if standing.state is not record.state:
            forward = record.state in way and standing.state in way
            between = (
                way[way.index(record.state) + 1 : way.index(standing.state)] if forward else []
            )
            for state in [*between, standing.state]:
                self._move(host, state, "found so on the host")
        if standing.state in (State.STAGED, State.ARMED):
            self._journal.learn(self._number, host, boot_id=seen.boot_id)
        return standing

    def _stage(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("staging: bring, check, install beside the running kernel"):
            results = self._driver.stage(hosts)
        failed = {}
        with self._journal.together():
            for host in hosts:
                result = results.get(host)
                if result is None or not result.reached:
                    self._unanswered(host, _silence(result))
                elif result.ok:
                    self._move(host, State.STAGED)
                else:
                    failed[host] = f"not installed: {result.message}"
        self._give_up(failed)

    def _arm(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("arming: the boot loader starts the new kernel once"):
            pulses = self._driver.pulse(hosts)
            with self._journal.together():
                for host in hosts:
                    # It may have booted since the look: what is armed belongs to this boot.
                    if pulse := pulses.get(host):
                        self._journal.learn(self._number, host, boot_id=pulse.boot_id)
            results = self._driver.arm(hosts)
        failed = {}
        with self._journal.together():
            for host in hosts:
                result = results.get(host)
                if result is None or not result.reached:
                    self._unanswered(host, _silence(result))
                elif result.ok:
                    self._move(host, State.ARMED)
                else:
                    failed[host] = f"not armed: {result.message}"
        self._give_up(failed)

    def _boot_of(self, host: str) -> str:
        """The boot before the trial."""
        return str(self._record(host).facts.get("boot_id", ""))

    def _stand_down(self, hosts: Sequence[str]) -> None:
        """Take the arming back: the rollout stops before these hosts boot."""
        if not hosts:
            return
        with ui.step("taking the arming back"):
            results = self._driver.disarm(hosts)
        for host in hosts:
            result = results.get(host)
            if result and result.ok:
                self._move(host, State.STAGED, "disarmed again, the rollout stopped")
            else:
                self._unanswered(
                    host, f"still armed: {result.message if result else _silence(None)}"
                )

    def _boot(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        began = self._clock()
        with ui.step("trial boot"):
            armed = self._in_state(hosts, State.ARMED)
            now = self._look_for(armed)
            with self._journal.together():
                for host in armed:
                    if now[host]:
                        self._move(host, State.TRIAL)
                    else:
                        self._unanswered(host, _silence(None))
            before = {host: self._boot_of(host) for host in self._in_state(hosts, State.TRIAL)}
            # One that was on trial already may be in the middle of its boot.
            now.update(self._driver.pulse([host for host in before if host not in now]))
            # A host on trial that does not answer was told by a run before this one.
            tell = {
                host: boot_id
                for host, boot_id in before.items()
                if (pulse := now.get(host)) and pulse.boot_id == boot_id
            }
            for host, told in (self._driver.reboot(tell) if tell else {}).items():
                if not told.ok:
                    ui.warn(f"{host}: the command to boot did not get through: {told.message}")
            back: dict[str, float] = {}
            pulses = self._await_boot(before, back)
            away = [host for host, pulse in pulses.items() if pulse is None]
            still = self._driver.pulse(away) if away else {}
            deaf = [
                host
                for host in away
                if (pulse := still.get(host)) and pulse.boot_id == before[host]
            ]
            # One that came in the last moment is back like any other.
            pulses.update({host: still[host] for host in away if host not in deaf})
            gone = [host for host in away if not still.get(host)]
            pulses.update(self._power_cycle(gone))
        self._give_up(dict.fromkeys(deaf, "it did not boot although it was told to"))
        judged = {host: pulse for host, pulse in pulses.items() if host not in deaf}
        self._judge_boots(judged, {host: at - began for host, at in back.items()})

    def _judge_boots(
        self, pulses: Mapping[str, Pulse | None], away: Mapping[str, float] | None = None
    ) -> None:
        """After trial boots: hosts that run the wanted kernel stay where they are.

        `away` is how long those were away that came back while they were waited for.
        """
        limit, wanted = ui.duration(self._trial_timeout), self._package.release
        fell, foreign = {}, {}
        for host, pulse in pulses.items():
            if pulse is None:
                self._lose(host, f"did not come back within {limit} of the trial boot")
                continue
            self._kernels[host] = pulse.release
            if pulse.release == wanted:
                continue
            if pulse.release != str(self._record(host).facts.get("previous")):
                foreign[host] = f"it came up with {pulse.release}, wanted is {wanted}"
                continue
            words = self._driver.last_words(host)
            fell[host] = (
                "the trial kernel did not stay up: the host came back on"
                f" {pulse.release}{self._how(host, (away or {}).get(host))}"
                + (f"; last words: {words}" if words else "")
            )
        self._give_up(fell)
        self._send_back(foreign)

    def _how(self, host: str, away: float | None) -> str:
        """How a host came back, as far as it was seen."""
        if host in self._switched:
            return " after its power was switched"
        return "" if away is None else f" by itself after {ui.duration(away)}"

    def _lose(self, host: str, reason: str) -> None:
        self._silent.add(host)
        self._move(
            host,
            State.LOST,
            f"{reason}; look at its console, switch its power off and on, then fsdeploy rollout"
            " --resume; with --power-command 'COMMAND {host}' that does the switching",
        )

    def _power_cycle(self, hosts: Sequence[str]) -> dict[str, Pulse | None]:
        """Switch hosts off and on where the operator gave a command for it, and wait for them."""
        results = self._driver.power_cycle(hosts) if hosts else {}
        for host, result in results.items():
            if not result.ok:
                ui.warn(f"{host}: the power command failed: {result.message}")
        switched = [host for host, result in results.items() if result.ok]
        self._switched.update(switched)
        if not switched:
            return {}
        with ui.step(f"power was switched, waiting for {_some(switched)}"):
            return self._await_boot(dict.fromkeys(switched, ""))

    def _look_for(self, hosts: Sequence[str]) -> dict[str, Pulse | None]:
        """Signs of life of hosts that should be there: silent is one that stays silent a while."""
        return await_boot(
            self._driver.pulse,
            dict.fromkeys(hosts, ""),
            _LOOK_SECONDS,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _await_boot(
        self, before: Mapping[str, str], back: dict[str, float] | None = None
    ) -> dict[str, Pulse | None]:
        """Wait for hosts; `back` gets when each was seen in another boot, by the clock."""

        def ask(hosts: Sequence[str]) -> Mapping[str, Pulse | None]:
            answers = self._driver.pulse(hosts)
            for host, pulse in answers.items():
                if back is not None and pulse and pulse.boot_id != before[host]:
                    back[host] = self._clock()
            return answers

        return await_boot(ask, before, self._trial_timeout, clock=self._clock, sleep=self._sleep)

    def _expect(self, host: str, default: str) -> Expectation:
        return Expectation(
            release=self._package.release,
            default=default,
            previous=str(self._record(host).facts.get("previous", "")),
            patched=self._package.is_patched,
            tuning=expected_settings(host),
        )

    def _verify(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        with ui.step("verification on the trial kernel"):
            expected = {}
            for host in hosts:
                facts = self._record(host).facts
                # One that was lost after its promotion has the new kernel as its default.
                promoted = "boot_id_after" in facts
                default = self._package.release if promoted else str(facts.get("previous"))
                expected[host] = self._expect(host, default)
            found = self._driver.verify(expected)
        bad = {}
        with self._journal.together():
            for host in hosts:
                checks = found.get(host)
                if checks is None:
                    bad[host] = "the host stopped to answer on the trial kernel"
                elif failed := failures(checks):
                    text = "; ".join(check.message or check.title for check in failed[:3])
                    bad[host] = f"a check failed on the trial kernel: {text}"
                else:
                    self._move(host, State.VERIFIED)
        self._send_back(bad)

    def _promote(self, hosts: Sequence[str]) -> None:
        if not hosts:
            return
        release = self._package.release
        with ui.step("promotion: the new kernel becomes the default"):
            # A run before this one may have got as far as setting it.
            results = {
                host: StepResult(True) for host in hosts if self._defaults.get(host) == release
            }
            left = [host for host in hosts if host not in results]
            if left:
                results.update(self._driver.promote(left, release))
            good = [host for host in hosts if (result := results.get(host)) and result.ok]
            found = self._driver.verify({host: self._expect(host, release) for host in good})
            pulses = self._look_for(good)
        bad = {}
        with self._journal.together():
            for host in hosts:
                result, checks, pulse = results.get(host), found.get(host), pulses.get(host)
                if result is None or not result.reached:
                    self._unanswered(host, _silence(result))
                elif not result.ok:
                    bad[host] = f"not promoted: {result.message}"
                elif checks is None or pulse is None:
                    self._unanswered(host, "did not answer when the promotion was verified")
                elif failed := failures(checks):
                    text = failed[0].message or failed[0].title
                    bad[host] = f"a check failed after the promotion: {text}"
                else:
                    self._move(host, State.PROMOTED, boot_id_after=pulse.boot_id)
        self._send_back(bad)

    # The way back.

    def _send_back(self, reasons: Mapping[str, str]) -> None:
        """Bring hosts that run the trial kernel back to the one before, together."""
        if not reasons:
            return
        with self._journal.together():
            for host, reason in reasons.items():
                self._move(host, self._record(host).state, reason, going_back=reason)
        before = {host: str(self._record(host).facts.get("previous")) for host in reasons}
        home: dict[str, Pulse] = {}
        last: dict[str, Pulse | None] = {}
        with ui.step(f"back to the kernel before: {_some(list(reasons))}"):
            # Twice: one that was silent for a while only still runs the trial kernel then.
            for _ in range(2):
                left = [host for host in reasons if host not in home]
                if not left:
                    break
                last.update(self._once_back(left, before))
                home.update(
                    {h: p for h, p in last.items() if p is not None and p.release == before[h]}
                )
        self._give_up({host: reasons[host] for host in home})
        for host, reason in reasons.items():
            pulse = last.get(host)
            if host in home:
                continue
            if pulse is None:
                self._lose(host, f"{reason}; then it did not come back")
                continue
            self._kernels[host] = pulse.release
            self._unanswered(
                host,
                f"{reason}; it still runs {pulse.release}: fsdeploy rollback --level kernel"
                f" --plain-ssh --limit {host}",
            )

    def _once_back(
        self, hosts: Sequence[str], before: Mapping[str, str]
    ) -> dict[str, Pulse | None]:
        """Tell hosts to boot the kernel before, and wait for them."""
        pulses = dict(self._driver.pulse(hosts))
        up = {
            host: pulse
            for host in hosts
            if (pulse := pulses.get(host)) and pulse.release != before[host]
        }
        # The default may be the new kernel already.
        for release in dict.fromkeys(before[host] for host in up):
            self._driver.promote([host for host in up if before[host] == release], release)
        if up:
            self._driver.reboot({host: pulse.boot_id for host, pulse in up.items()})
        waited = {
            host: pulse.boot_id if (pulse := pulses.get(host)) else ""
            for host in hosts
            if host in up or not pulses.get(host)
        }
        pulses.update(self._await_boot(waited))
        pulses.update(self._power_cycle([host for host in hosts if not pulses.get(host)]))
        return pulses

    def _give_up(self, reasons: Mapping[str, str]) -> None:
        """Hosts that run their old kernel: leave nothing on them, then `rolled-back`."""
        if not reasons:
            return
        self._clean_up(list(reasons))
        with self._journal.together():
            for host, reason in reasons.items():
                record = self._record(host)
                self._kernels[host] = str(record.facts.get("previous", ""))
                self._move(host, State.ROLLED_BACK, reason)

    def _clean_up(self, hosts: Sequence[str]) -> None:
        """Leave boot loader and packages as they were; what cannot be done now is told."""
        before = {host: str(self._record(host).facts.get("previous")) for host in hosts}
        # This takes the arming back, too.
        results = [
            self._driver.promote([host for host in hosts if before[host] == release], release)
            for release in dict.fromkeys(before.values())
        ]
        ours = [host for host in hosts if not self._record(host).facts.get("installed_before")]
        if ours:
            results.append(self._driver.unstage(ours))
        for part in results:
            for host, result in part.items():
                if not result.ok:
                    ui.warn(f"{host}: not all was cleaned up: {result.message}")


def _some(hosts: Sequence[str]) -> str:
    """A few names, and how many more."""
    return ", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")


def _snapshot(looked: Mapping[str, Looked], host: str) -> Snapshot | None:
    look = looked.get(host)
    return look.snapshot if look and look.result.reached else None


def _seen(snapshot: Snapshot | None, pulse: Pulse | None) -> Seen | None:
    if snapshot and snapshot.boot.get("kind") != "unknown":
        boot = snapshot.boot
        return Seen(
            snapshot.boot_id,
            snapshot.running,
            *(str(boot.get(f"{what}_release") or "") for what in ("default", "once", "tried")),
        )
    if snapshot:
        return Seen(snapshot.boot_id, snapshot.running)
    return Seen(pulse.boot_id, pulse.release) if pulse else None


def _silence(result: StepResult | None) -> str:
    detail = result.message if result else ""
    return "does not answer over SSH" + (f": {detail}" if detail else "")


def _dry_run(driver: Driver, plan: RolloutPlan, package: KernelPackage) -> tuple[HostOutcome, ...]:
    looked: dict[str, Looked] = {}
    for wave in plan.waves:
        with ui.step(f"looking at wave {wave.number}, {wave.name}: {_some(wave.names)}"):
            looked.update(driver.look(wave.names))
    return tuple(
        _would_be(host.name, wave.number, looked.get(host.name), package)
        for wave in plan.waves
        for host in wave.hosts
    )


def _would_be(name: str, wave: int, look: Looked | None, package: KernelPackage) -> HostOutcome:
    """What a rollout would make of a host, as far as a look tells."""
    if look is None or not look.result.reached:
        reason = _silence(look.result if look else None)
        return HostOutcome(name, State.PLANNED, "", reason, reached=False, wave=wave)
    if look.snapshot is None:
        return HostOutcome(name, State.REFUSED, "", look.result.message, wave=wave)
    findings = judge(look.snapshot, package)
    refusals = [str(item) for item in findings if item.refused]
    return HostOutcome(
        name,
        State.REFUSED if refusals else State.PLANNED,
        look.snapshot.running,
        "; ".join(refusals) or f"would try {package.release}",
        warnings=tuple(str(item) for item in findings if not item.refused),
        wave=wave,
    )


def _plan(driver: Driver, names: Sequence[str], release: str, policy: Policy) -> RolloutPlan:
    with ui.step("asking hosts for their hardware class"):
        classes = driver.classes(names)
    hosts = [Candidate(name, classes.get(name, "")) for name in names]
    return plan_rollout(release, hosts, policy)


def _recorded_plan(book: Journal, record: RolloutRecord) -> RolloutPlan:
    """The plan that the journal has."""
    return RolloutPlan(
        record.release,
        tuple(
            Wave(
                wave.number,
                wave.name,
                tuple(
                    Candidate(host.name, host.hardware)
                    for host in book.hosts(record.number, wave=wave.number)
                ),
                wave.soak,
            )
            for wave in book.waves(record.number)
        ),
        record.budget,
    )


def rollout(request: RolloutRequest, *, journal: Journal | None = None) -> RolloutReport:
    """Bring a kernel to hosts; see fsdeploy/fleet/states.py for the way of a host.

    FsdeployError for what is wrong with the request itself; what happens on hosts is in the report.
    """
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    package = read_package(request.kernel, request.key)
    _require_key(request, package)
    with contextlib.ExitStack() as stack:
        if request.dry_run:
            driver = stack.enter_context(_driver(request, inventory, package))
            plan = _plan(driver, inventory.names, package.release, request.policy)
            outcomes = _dry_run(driver, plan, package)
            fit = [host.host for host in outcomes if host.state is State.PLANNED and host.reached]
            return RolloutReport(
                plan,
                outcomes,
                time.monotonic() - began,
                dry_run=True,
                log=driver.log,
                commands=driver.commands(fit),
            )
        book = journal or stack.enter_context(Journal())
        held = stack.enter_context(book.lock())
        _refuse_half_way(book, inventory)
        driver = stack.enter_context(_driver(request, inventory, package, held))
        plan = _plan(driver, inventory.names, package.release, request.policy)
        asked = {**request.as_dict(), "sha256": package.sha256}
        if package.key:
            asked.update(key=str(package.key.path), fingerprint=package.key.fingerprint)
        number = book.begin(plan, inventory=str(inventory.path), request=asked)
        walk = Walk(driver, book, number, package, trial_timeout=request.trial_timeout)
        return _walked(walk, book, number, began, driver.log)


def resume(request: ResumeRequest, *, journal: Journal | None = None) -> RolloutReport:
    """Go on with the last rollout, from where its hosts stand."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        book = journal or stack.enter_context(Journal())
        held = stack.enter_context(book.lock())
        record = _to_resume(book)
        first = _first_request(record, request)
        inventory = load_inventory(first.inventory)
        inventory = _same_hosts(book, record, inventory)
        package = read_package(first.kernel, first.key)
        _require_key(first, package)
        _require_same(record, package)
        driver = stack.enter_context(_driver(first, inventory, package, held))
        book.reopen(record.number, budget=request.budget)
        walk = Walk(driver, book, record.number, package, trial_timeout=first.trial_timeout)
        walk.find_again()
        return _walked(walk, book, record.number, began, driver.log)


def _walked(walk: Walk, book: Journal, number: int, began: float, log: Path) -> RolloutReport:
    stopped = walk.run()
    book.finish(number, stopped)
    return RolloutReport(
        _recorded_plan(book, book.rollout(number)),
        walk.outcomes(stopped),
        time.monotonic() - began,
        number=number,
        log=log,
        stopped=stopped,
    )


def _driver(
    request: RolloutRequest, inventory: Inventory, package: KernelPackage, *keep_open: int
) -> FleetDriver:
    return FleetDriver(
        inventory,
        package=package,
        trial_arguments=request.trial_arguments,
        power_command=request.power_command,
        repository=request.repository,
        keep_open=keep_open,
    )


def _refuse_half_way(book: Journal, inventory: Inventory) -> None:
    """A new rollout must not begin on hosts that an earlier one left half way."""
    left = book.half_way(inventory.names, tuple(HALF_WAY))
    if left:
        first = left[0]
        raise FsdeployError(
            f"rollout {first.rollout} left {_some([host.name for host in left])} half way"
            f" ({first.state})",
            hint="bring it to its end with fsdeploy rollout --resume, or take those hosts back:"
            f" fsdeploy rollback --level kernel --inventory {inventory.path}"
            f" --limit {','.join(host.name for host in left[:5])}",
        )


def _to_resume(book: Journal) -> RolloutRecord:
    record = book.latest()
    open_hosts = record and [
        host
        for host in book.hosts(record.number)
        if host.state not in FINAL or host.state is State.LOST
    ]
    # One that was cut off after its last host has only its end to be written.
    if record is None or not (open_hosts or record.ended is None):
        raise FsdeployError(
            "there is no rollout to resume",
            hint="fsdeploy status shows the last one; start a new one without --resume",
        )
    return record


def _same_hosts(book: Journal, record: RolloutRecord, inventory: Inventory) -> Inventory:
    """The rollout's hosts; one that is at its end may have left the inventory since."""
    soaking = {wave.number for wave in book.waves(record.number) if wave.soaked is None}
    names = set()
    for host in book.hosts(record.number):
        names.add(host.name)
        ended = host.state in (State.REFUSED, State.ROLLED_BACK)
        if not ended and (host.state is not State.PROMOTED or host.wave in soaking):
            inventory.host(host.name)
    return replace(inventory, hosts=tuple(host for host in inventory.hosts if host.name in names))


def _first_request(record: RolloutRecord, request: ResumeRequest) -> RolloutRequest:
    """What was asked for when the rollout began, with what is asked for otherwise now."""
    asked = record.request
    return RolloutRequest(
        request.inventory or Path(record.inventory),
        request.kernel or Path(str(asked.get("kernel", ""))),
        key=request.key or (Path(str(asked["key"])) if asked.get("key") else None),
        repository=request.repository or str(asked.get("repository", "")),
        trial_timeout=request.trial_timeout or float(asked.get("trial_timeout", 600)),
        trial_arguments=tuple(asked.get("trial_arguments", ())),
        power_command=request.power_command or str(asked.get("power_command", "")),
    )


def _require_key(request: RolloutRequest, package: KernelPackage) -> None:
    """What hosts fetch themselves must be signed."""
    if request.repository and package.key is None:
        raise FsdeployError(
            "--repository needs the public key of the repository: hosts take only signed packages"
            " from it",
            hint="give it with --key, or give the kernel as it lies in the folder that fsdeploy"
            " publish made",
        )


def _require_same(record: RolloutRecord, package: KernelPackage) -> None:
    """Hosts of one rollout get one package."""
    if record.release != package.release:
        raise FsdeployError(
            f"the rollout to resume brings {record.release}, {package.path} has {package.release}",
            hint=f"fsdeploy rollout --resume --kernel {record.request.get('kernel')}",
        )
    key = package.key.fingerprint if package.key else ""
    if record.request.get("fingerprint", "") != key:
        raise FsdeployError(
            f"the rollout to resume asks for the key {record.request.get('fingerprint') or 'none'},"
            f" given is {key or 'none'}",
            hint="give the first one with --key",
        )
    if record.request.get("sha256", package.sha256) != package.sha256:
        raise FsdeployError(
            f"{package.path} is another file than the one the rollout began with, of the same"
            " release",
            hint="give the first one with --kernel, or take the hosts back and begin anew",
        )
