# SPDX-License-Identifier: GPL-2.0-only
"""Where each host stands: from the journal, and from the hosts themselves when asked to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.journal import FINAL, Journal
from fsdeploy.fleet.transport import session


@dataclass(frozen=True)
class HostStatus:
    """One host. `kernel` is empty unless it was asked; `changed` is seconds since 1970."""

    host: str
    state: str
    release: str
    reason: str
    changed: float | None
    rollout: int | None
    kernel: str = ""
    reached: bool | None = None


@dataclass(frozen=True)
class StatusReport:
    """All hosts asked for, and whether a rollout is open."""

    hosts: tuple[HostStatus, ...]
    open_rollout: int | None

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host was asked and does not answer."""
        silent = any(host.reached is False for host in self.hosts)
        return ExitCode.UNREACHABLE if silent else ExitCode.OK

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "open_rollout": self.open_rollout,
            "hosts": [dict(vars(host)) for host in self.hosts],
        }


def fleet_status(
    *,
    inventory: Path | None = None,
    limit: tuple[str, ...] = (),
    live: bool = False,
    journal: Journal | None = None,
) -> StatusReport:
    """What the journal knows; with `live` also what the hosts say. Changes nothing."""
    if live and inventory is None:
        raise FsdeployError("hosts can only be asked with --inventory FILE")
    fleet = load_inventory(inventory).limited(limit) if inventory else None
    book = journal or Journal.to_read()
    try:
        names = fleet.names if fleet else book.known_hosts()
        latest = book.latest()
        still_open = latest and any(host.state not in FINAL for host in book.hosts(latest.number))
        found = []
        for name in names:
            record = book.latest_of(name)
            if record is None:
                found.append(HostStatus(name, "-", "", "never in a rollout", None, None))
                continue
            release = book.rollout(record.rollout).release
            found.append(
                HostStatus(
                    name,
                    str(record.state),
                    release,
                    record.reason,
                    record.changed,
                    record.rollout,
                )
            )
    finally:
        if journal is None:
            book.close()
    if live and fleet:
        with session(fleet) as ssh:
            pulses = ssh.each(fleet.hosts, ssh.pulse)
        found = [
            HostStatus(
                **{
                    **vars(host),
                    "kernel": pulse.release if (pulse := pulses[host.host]) else "",
                    "reached": pulse is not None,
                }
            )
            for host in found
        ]
    return StatusReport(tuple(found), latest.number if latest and still_open else None)
