# SPDX-License-Identifier: GPL-2.0-only
"""Where each host stands: from the journal, and from the hosts themselves when asked to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.journal import HostRecord, Journal
from fsdeploy.fleet.states import State
from fsdeploy.fleet.transport import session
from fsdeploy.fleet.why import Progress, progress_of


@dataclass(frozen=True)
class HostStatus:
    """One host. `kernel` is empty unless it was asked; `changed` is seconds since 1970."""

    host: str
    state: str
    release: str
    reason: str
    changed: float | None
    rollout: int | None
    wave: int | None = None
    kernel: str = ""
    reached: bool | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to look at it: all is done or nothing is begun."""
        return self.state in (State.PROMOTED, State.PLANNED) and not self.reason


@dataclass(frozen=True)
class StatusReport:
    """All hosts asked for, and the last rollout."""

    hosts: tuple[HostStatus, ...]
    progress: Progress | None

    @property
    def open_rollout(self) -> int | None:
        """The number of the last rollout when something is left to do in it."""
        if self.progress and self.progress.is_open:
            return self.progress.rollout.number
        return None

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host was asked and does not answer."""
        silent = any(host.reached is False for host in self.hosts)
        return ExitCode.UNREACHABLE if silent else ExitCode.OK

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "open_rollout": self.open_rollout,
            "rollout": _progress_dict(self.progress) if self.progress else None,
            "hosts": [dict(vars(host)) for host in self.hosts],
        }


def _progress_dict(progress: Progress) -> dict[str, Any]:
    return {
        "number": progress.rollout.number,
        "release": progress.rollout.release,
        "running": bool(progress.owner),
        "stopped": progress.rollout.stopped,
        "budget": progress.rollout.budget,
        "waves": [
            {
                "number": wave.number,
                "name": wave.name,
                "soak": wave.soak,
                "soak_left": round(progress.soak_left(wave), 1),
                "began": wave.began,
                "ended": wave.ended,
                "hosts": progress.size(wave),
                "states": {
                    str(state): many for state, many in progress.counts.get(wave.number, {}).items()
                },
            }
            for wave in progress.waves
        ],
    }


def fleet_status(
    *,
    inventory: Path | None = None,
    limit: tuple[str, ...] = (),
    live: bool = False,
    journal: Journal | None = None,
) -> StatusReport:
    """What the journal knows; with `live` also what the hosts say. Changes nothing."""
    if inventory is None and (live or limit):
        raise FsdeployError("hosts can only be chosen or asked with --inventory FILE")
    fleet = load_inventory(inventory).limited(limit) if inventory else None
    book = journal or Journal.to_read()
    try:
        known = {record.name: record for record in book.latest_of_all()}
        releases = {number: item.release for number, item in book.rollouts().items()}
        latest = book.latest()
        progress = progress_of(book, latest) if latest else None
    finally:
        if journal is None:
            book.close()
    names = fleet.names if fleet else tuple(known)
    found = [_status(name, known.get(name), releases) for name in names]
    if live and fleet:
        with session(fleet) as ssh:
            pulses = ssh.each(fleet.hosts, ssh.pulse)
        found = [
            replace(
                host,
                kernel=pulse.release if (pulse := pulses[host.host]) else "",
                reached=pulse is not None,
            )
            for host in found
        ]
    return StatusReport(tuple(found), progress)


def _status(name: str, record: HostRecord | None, releases: dict[int, str]) -> HostStatus:
    if record is None:
        return HostStatus(name, "-", "", "never in a rollout", None, None)
    return HostStatus(
        name,
        str(record.state),
        releases[record.rollout],
        record.reason,
        record.changed,
        record.rollout,
        record.wave,
    )
