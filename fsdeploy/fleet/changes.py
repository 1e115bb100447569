# SPDX-License-Identifier: GPL-2.0-only
"""What was done to hosts, or would be, thing by thing: what tuning and services report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from fsdeploy.errors import ExitCode, exit_code_of
from fsdeploy.tuning.settings import Outcome


class Ended(Protocol):
    """One thing on a host and how it ended."""

    @property
    def outcome(self) -> Outcome:
        """How."""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""


EndedT = TypeVar("EndedT", bound=Ended)


@dataclass(frozen=True)
class HostChanges(Generic[EndedT]):
    """A host's things: how they would end, or ended."""

    host: str
    ok: bool
    reason: str = ""
    reached: bool = True
    changed: bool = False
    items: tuple[EndedT, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self, outcome: Outcome) -> int:
        """How many ended so."""
        return sum(item.outcome is outcome for item in self.items)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`, all but the things themselves."""
        return {
            "host": self.host,
            "ok": self.ok,
            "reached": self.reached,
            "reason": self.reason,
            "changed": self.changed,
            "notes": list(self.notes),
        }


HostT = TypeVar("HostT", bound=HostChanges[Any])


@dataclass(frozen=True)
class ChangesReport(Generic[HostT]):
    """One outcome a host; `commands` do the same by hand. `prospect`: nothing was changed."""

    hosts: tuple[HostT, ...]
    seconds: float
    log: Path | None = None
    commands: tuple[str, ...] = ()
    prospect: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host does not answer, else 1 when one did not take it, else 0."""
        return exit_code_of(self.hosts)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 1),
            "dry_run": self.prospect,
            "log": str(self.log or ""),
            "commands": list(self.commands),
            "hosts": [host.as_dict() for host in self.hosts],
        }
