# SPDX-License-Identifier: GPL-2.0-only
"""Sends hosts back to the kernel before: makes it the default, boots it, verifies.

The boot loader is set by the host module where the host's Python works, else over plain SSH with
nothing but a shell, coreutils and what bootloader.py computes here.
"""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import ExitCode, FsdeployError, exit_code_of
from fsdeploy.fleet import bootloader
from fsdeploy.fleet.boot import await_boot
from fsdeploy.fleet.bootloader import BootState, Kind
from fsdeploy.fleet.drive import FleetDriver
from fsdeploy.fleet.inventory import Host, load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.package import is_patched
from fsdeploy.fleet.states import HALF_WAY, State
from fsdeploy.fleet.transport import Pulse, Ssh
from fsdeploy.verify.report import Expectation, failures

_STAGE2 = "/boot/grub/stage2"


class Level(StrEnum):
    """What is taken back."""

    SERVICE = "service"
    MODULE = "module"
    TUNING = "tuning"
    KERNEL = "kernel"


@dataclass(frozen=True)
class RollbackRequest:
    """What to take back; `to` is the release to go back to, by default the one before.

    `plain_ssh` does without Ansible from the start.
    """

    inventory: Path
    to: str = ""
    limit: tuple[str, ...] = ()
    dry_run: bool = False
    boot_timeout: float = 600.0
    plain_ssh: bool = False


@dataclass(frozen=True)
class RollbackOutcome:
    """Where a host ended. `kernel` is what it runs."""

    host: str
    ok: bool
    kernel: str
    reason: str
    reached: bool = True


@dataclass(frozen=True)
class RollbackReport:
    """One outcome a host."""

    hosts: tuple[RollbackOutcome, ...]
    seconds: float
    log: Path
    dry_run: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host does not answer, else 1 when one did not get back, else 0."""
        return exit_code_of(self.hosts)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 1),
            "dry_run": self.dry_run,
            "log": str(self.log),
            "hosts": [
                {
                    "host": host.host,
                    "ok": host.ok,
                    "kernel": host.kernel,
                    "reason": host.reason,
                    "reached": host.reached,
                }
                for host in self.hosts
            ],
        }


# The boot loader over plain SSH


def read_files(ssh: Ssh, host: Host) -> BootState:
    """A host's boot loader state over plain SSH. Unreachable when it does not answer."""

    def read(path: str) -> bytes | None:
        text = ssh.require(host, f"if [ -e {path} ]; then base64 {path}; else echo -; fi")
        return None if text.strip() == "-" else base64.b64decode(text)

    return bootloader.read_boot(read)


def _write_command(path: str) -> str:
    """A shell command that replaces a file with what it is given, whole or not at all."""
    # A symlink (menu.lst, /etc/grub.conf) stays one: the file behind it is replaced.
    return (
        f"f=$(readlink -f {shlex.quote(path)}) && base64 -d > $f.new"
        " && chmod --reference=$f $f.new && sync && mv -f $f.new $f && sync"
    )


def _disarm_command(word: int) -> str:
    """A shell command that writes the word back into stage2, in place."""
    octal = "".join(f"\\{word >> shift & 0xFF:03o}" for shift in (0, 8, 16, 24))
    return (
        f"printf '{octal}' | dd of={_STAGE2} bs=1 seek={bootloader.ONCE_OFFSET} conv=notrunc"
        " 2>/dev/null && sync"
    )


def set_default_plainly(ssh: Ssh, host: Host, release: str) -> None:
    """Make a release the default with a shell only, and read it back.

    FsdeployError when the boot loader is not known or does not say afterwards what it should.
    """
    state = read_files(ssh, host)
    if state.kind is Kind.UNKNOWN:
        raise _unknown_loader()
    entry = state.entry(release)
    if state.kind is Kind.GRUB2:
        word = shlex.quote(entry.path)
        ssh.require(
            host,
            "PATH=/sbin:/usr/sbin:$PATH; s=$(command -v grub2-set-default || command -v"
            f" grub-set-default) && $s {word} && for e in grub2-editenv grub-editenv; do"
            " command -v $e >/dev/null && $e - unset next_entry; done; sync",
        )
    else:
        raw = base64.b64decode(ssh.require(host, f"base64 {state.config}"))
        text = raw.decode("utf-8", "surrogateescape")
        if state.once_release and state.kind is Kind.REDHAT_LEGACY:
            stage2 = base64.b64decode(ssh.require(host, f"head -c 1024 {_STAGE2} | base64"))
            saved = bootloader.stage2_word(stage2) & 0xFF
            ssh.require(host, _disarm_command(saved))
        # A number serves both: Debian's GRUB leaves its default file alone then.
        changed = bootloader.with_default(text, str(entry.index))
        _put(ssh, host, state.config, changed.encode("utf-8", "surrogateescape"))
    after = read_files(ssh, host)
    if after.default_release != release or after.once_release:
        raise FsdeployError(
            f"{host.name}: the boot loader would still start"
            f" {after.once_release or after.default_release or 'something else'}"
        )


def _unknown_loader() -> FsdeployError:
    return FsdeployError(
        "the host's boot loader is not one that fsdeploy knows",
        hint="make the kernel the default by hand and boot the host",
    )


def _put(ssh: Ssh, host: Host, path: str, data: bytes) -> None:
    answer = ssh.execute(
        host, _write_command(path), input_text=base64.encodebytes(data).decode("ascii")
    )
    if not answer.ok:
        raise FsdeployError(f"{host.name}: {path} could not be written: {answer.output.strip()}")


# The rollback


def choose_release(state: BootState, running: str, wanted: str, previous: str) -> str:
    """The release to go back to: what was asked for, else the journal's, else the only other.

    FsdeployError when it has no entry or when there is a choice.
    """
    if state.kind is Kind.UNKNOWN:
        raise _unknown_loader()
    release = wanted or (previous if previous != running else "")
    if release:
        return state.entry(release).release
    others = [item for item in state.releases if item != running]
    if len(others) == 1:
        return others[0]
    if not others:
        raise FsdeployError(f"{state.config} has no kernel but the running one ({running})")
    raise FsdeployError(
        f"there are several kernels to go back to: {', '.join(others)}",
        hint="name one with --to RELEASE",
    )


@dataclass
class _Way:
    """A host on its way back."""

    host: Host
    pulse: Pulse
    release: str
    problem: str = ""


class _Rollback:
    def __init__(self, driver: FleetDriver, journal: Journal, request: RollbackRequest) -> None:
        self._driver = driver
        self._journal = journal
        self._request = request

    def run(self, hosts: Sequence[Host]) -> tuple[RollbackOutcome, ...]:
        """Every host, side by side where it counts: the boots."""
        ended: dict[str, RollbackOutcome] = {}
        ways: list[_Way] = []
        pulses = self._driver.pulse([host.name for host in hosts])
        for host in hosts:
            self._set_out(host, pulses[host.name], ended, ways)
        if self._request.dry_run:
            for way in ways:
                ended[way.host.name] = RollbackOutcome(
                    way.host.name, True, way.pulse.release, f"would boot {way.release}"
                )
            return tuple(ended[host.name] for host in hosts)
        self._set_defaults(ways)
        going = [way for way in ways if not way.problem]
        with ui.step("boot"):
            self._driver.reboot(
                {
                    way.host.name: way.pulse.boot_id
                    for way in going
                    if way.pulse.release != way.release
                }
            )
            arrived = self._await(going)
        self._arrive(ways, arrived, ended)
        return tuple(ended[host.name] for host in hosts)

    def _set_out(
        self,
        host: Host,
        pulse: Pulse | None,
        ended: dict[str, RollbackOutcome],
        ways: list[_Way],
    ) -> None:
        name = host.name
        if pulse is None:
            ended[name] = RollbackOutcome(name, False, "", "does not answer over SSH", False)
            return
        record = self._journal.latest_touched(name)
        previous = str(record.facts.get("previous", "")) if record else ""
        # A host that a rollout left half way goes back even when its trial has not booted yet.
        half_way = previous if record and record.state in HALF_WAY else ""
        try:
            state = read_files(self._driver.ssh, host)
            release = choose_release(state, pulse.release, self._request.to or half_way, previous)
        except FsdeployError as problem:
            hint = f"; {problem.hint}" if problem.hint else ""
            ended[name] = RollbackOutcome(name, False, pulse.release, problem.message + hint)
            return
        there = pulse.release == release and state.default_release == release
        if there and not state.once_release:
            ended[name] = RollbackOutcome(
                name, True, release, f"runs {release} by default already, nothing changed"
            )
            return
        ways.append(_Way(host, pulse, release))

    def _set_defaults(self, ways: Sequence[_Way]) -> None:
        for release in dict.fromkeys(way.release for way in ways):
            group = [way for way in ways if way.release == release]
            results: Mapping[str, Any] = {}
            if not self._request.plain_ssh:
                with ui.step(f"{release} becomes the default"):
                    results = self._driver.promote([way.host.name for way in group], release)
            for way in group:
                result = results.get(way.host.name)
                if result is not None and result.ok:
                    continue
                if result is not None:
                    ui.warn(f"{way.host.name}: {result.message}; trying over plain SSH")
                try:
                    with ui.step(f"{way.host.name}: {release} becomes the default (plain SSH)"):
                        set_default_plainly(self._driver.ssh, way.host, release)
                except FsdeployError as problem:
                    way.problem = problem.message

    def _await(self, ways: Sequence[_Way]) -> dict[str, Pulse | None]:
        there = {way.host.name: way.pulse for way in ways if way.pulse.release == way.release}
        before = {way.host.name: way.pulse.boot_id for way in ways if way.host.name not in there}
        waited = await_boot(self._driver.pulse, before, self._request.boot_timeout)
        return {**there, **waited}

    def _arrive(
        self,
        ways: Sequence[_Way],
        arrived: Mapping[str, Pulse | None],
        ended: dict[str, RollbackOutcome],
    ) -> None:
        limit = ui.duration(self._request.boot_timeout)
        home = []
        for way in ways:
            name = way.host.name
            pulse = arrived.get(name)
            if way.problem:
                ended[name] = RollbackOutcome(name, False, way.pulse.release, way.problem)
            elif pulse is None:
                reason = f"did not come back within {limit}; look at its console"
                ended[name] = RollbackOutcome(name, False, "", reason, False)
            elif pulse.release != way.release:
                reason = f"came up with {pulse.release} instead of {way.release}"
                ended[name] = RollbackOutcome(name, False, pulse.release, reason)
            else:
                home.append(way)
        with ui.step("verification"):
            found = self._driver.verify(
                {
                    way.host.name: Expectation(
                        way.release, way.release, "", is_patched(way.release)
                    )
                    for way in home
                }
            )
        for way in home:
            name = way.host.name
            checks = found.get(name)
            if checks is None:
                reason = "does not answer to the checks"
                ended[name] = RollbackOutcome(name, False, way.release, reason, False)
            elif failed := failures(checks):
                reason = f"a check failed: {failed[0].message or failed[0].title}"
                ended[name] = RollbackOutcome(name, False, way.release, reason)
            else:
                reason = f"back from {way.pulse.release}"
                ended[name] = RollbackOutcome(name, True, way.release, reason)
                self._record(way)

    def _record(self, way: _Way) -> None:
        record = self._journal.latest_touched(way.host.name)
        if record and record.state in (State.PROMOTED, State.LOST, *HALF_WAY):
            self._journal.move(
                record.rollout,
                way.host.name,
                State.ROLLED_BACK,
                f"by fsdeploy rollback, to {way.release}",
                {"previous": way.release, "back_from": way.pulse.release},
            )


def rollback_kernel(request: RollbackRequest, *, journal: Journal | None = None) -> RollbackReport:
    """Send hosts back to the kernel before. What happens on hosts is in the report."""
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    book = journal or Journal()
    try:
        with (
            book.lock() as held,
            FleetDriver(inventory, command="rollback", keep_open=[held]) as driver,
        ):
            outcomes = _Rollback(driver, book, request).run(inventory.hosts)
            return RollbackReport(outcomes, time.monotonic() - began, driver.log, request.dry_run)
    finally:
        if journal is None:
            book.close()
