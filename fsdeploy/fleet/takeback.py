# SPDX-License-Identifier: GPL-2.0-only
"""Takes back what hosts remember: by the host module, else over plain SSH, and verifies it.

What tuning, services and the module have in common; each says in a `Way` how its own part goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fsdeploy import ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import Host, load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plainly import read_record
from fsdeploy.fleet.rollback import RollbackOutcome, RollbackReport, RollbackRequest
from fsdeploy.fleet.transport import Ssh
from fsdeploy.verify.report import Expectation, failures
from fsdeploy.verify.suite import run_checks

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Back:
    """A host that was put back: what must be true now, and what is to be said of it."""

    expectation: Expectation
    reason: str


@dataclass(frozen=True)
class Tried:
    """How the host module ended on a host: put back, refused for good, or not able to work."""

    back: Back | None = None
    problem: str = ""
    final: bool = False


class Way(Protocol):
    """One level of a rollback."""

    @property
    def record(self) -> str:
        """Where a host keeps what it remembers."""

    @property
    def nothing(self) -> str:
        """What is said of a host that remembers nothing."""

    @property
    def checks(self) -> tuple[str, ...]:
        """How the names of the checks begin that are about this level."""

    def would(self, record: Record) -> str:
        """What a dry run says."""

    def forget(self, host: str) -> None:
        """Nothing of the level is expected of the host any more."""

    def with_ansible(
        self, ssh: Ssh, records: Mapping[str, Record], log: Path
    ) -> Mapping[str, Tried]:
        """Put hosts back by the host module."""

    def plainly(self, ssh: Ssh, host: Host, record: Record) -> Back:
        """Put a host back with a shell only; FsdeployError naming what is not put back."""


@dataclass
class _Ended:
    """What is known of hosts so far."""

    kernels: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, RollbackOutcome] = field(default_factory=dict)

    def say(self, host: str, ok: bool, reason: str, *, reached: bool = True) -> None:
        self.outcomes[host] = RollbackOutcome(host, ok, self.kernels.get(host, ""), reason, reached)


def take_back(
    request: RollbackRequest, way: Way, *, journal: Journal | None = None
) -> RollbackReport:
    """Put hosts back to what they were before the first change. What happens is in the report."""
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    log = new_log("rollback")
    ended = _Ended()
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(inventory, log=log))
        if not request.dry_run:
            book = journal or stack.enter_context(Journal())
            stack.enter_context(book.lock())
        records = _look(ssh, way, request, ended)
        if not request.dry_run:
            back = _restore(ssh, way, records, request.plain_ssh, log, ended)
            if back:
                _prove(ssh, way, back, log, ended)
    hosts = tuple(ended.outcomes[name] for name in inventory.names)
    return RollbackReport(hosts, time.monotonic() - began, log, request.dry_run)


def _look(ssh: Ssh, way: Way, request: RollbackRequest, ended: _Ended) -> dict[str, Record]:
    """What hosts remember; those with nothing to do are in `ended`."""
    records: dict[str, Record] = {}
    pulses = ssh.each(ssh.inventory.hosts, ssh.pulse)
    for host in ssh.inventory.hosts:
        name, pulse = host.name, pulses[host.name]
        if pulse is None:
            ended.say(name, False, "does not answer over SSH", reached=False)
            continue
        ended.kernels[name] = pulse.release
        try:
            record = read_record(ssh, host, way.record)
        except FsdeployError as problem:
            ended.say(name, False, problem.message)
            continue
        if record is None:
            ended.say(name, True, way.nothing)
            if not request.dry_run:
                way.forget(name)
            continue
        records[name] = record
        if request.dry_run:
            ended.say(name, True, way.would(record))
    return records


def _restore(
    ssh: Ssh, way: Way, records: Mapping[str, Record], plain: bool, log: Path, ended: _Ended
) -> dict[str, Back]:
    """The hosts that were put back; what is wrong with the others is in `ended`."""
    tried: Mapping[str, Tried] = {}
    if not plain and records:
        tried = way.with_ansible(ssh, records, log)
    back: dict[str, Back] = {}
    for name, record in records.items():
        outcome = tried.get(name)
        if outcome is not None and outcome.back:
            back[name] = outcome.back
            way.forget(name)
            continue
        if outcome is not None and outcome.final:
            # The module worked and the host said no: a shell gets the same answer.
            ended.say(name, False, outcome.problem)
            continue
        if outcome is not None:
            ui.warn(f"{name}: {outcome.problem}; trying over plain SSH")
        try:
            with ui.step(f"{name}: putting back (plain SSH)"):
                back[name] = way.plainly(ssh, ssh.inventory.host(name), record)
                way.forget(name)
        except FsdeployError as problem:
            ended.say(name, False, problem.message)
    return back


def _prove(ssh: Ssh, way: Way, back: Mapping[str, Back], log: Path, ended: _Ended) -> None:
    """The shipped checks, with what was before as what is expected."""
    with ui.step("verification"):
        reports = run_checks(
            ssh.config,
            {name: item.expectation for name, item in back.items()},
            log=log,
            # The others are about what is left alone.
            only=way.checks,
        )
    for report in reports:
        failed = failures(report.checks)
        if not report.reached:
            ended.say(report.host, False, "does not answer to the checks", reached=False)
        elif failed:
            ended.say(report.host, False, f"a check failed: {failed[0].message or failed[0].title}")
        else:
            ended.say(report.host, True, back[report.host].reason)
