# SPDX-License-Identifier: GPL-2.0-only
"""Whether a rollout may go on: its canaries and its failure budget. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fsdeploy.fleet.states import State


@dataclass(frozen=True)
class Standpoint:
    """A host as the gate sees it. `stuck`: it is half way and does not answer any more."""

    host: str
    state: State
    reason: str = ""
    hardware: str = ""
    canary: bool = False
    stuck: bool = False
    restarted: bool = False

    @property
    def failed(self) -> bool:
        """Whether it counts against the budget.

        A host on which nothing was done (refused, or never reached) says nothing about the kernel.
        """
        if self.state in (State.ROLLED_BACK, State.LOST):
            return True
        if self.state in (State.PLANNED, State.PREFLIGHT, State.REFUSED):
            return False
        return self.stuck or self.restarted


def over_budget(hosts: Iterable[Standpoint], budget: int) -> str:
    """Why too many hosts failed, empty when they did not."""
    failed = [host for host in hosts if host.failed]
    if len(failed) <= budget:
        return ""
    first = failed[0]
    story = f"{first.host} ({first.state}: {first.reason})"
    if len(failed) > 1:
        story += ", " + ", ".join(host.host for host in failed[1:6])
    if len(failed) > 6:
        story += ", …"
    hosts_failed = "1 host failed" if len(failed) == 1 else f"{len(failed)} hosts failed"
    return f"{hosts_failed}, the budget is {budget}: {story}"


def canary_missing(hosts: Iterable[Standpoint]) -> str:
    """Which class has a canary that did not get there; to be asked after the canaries' wave."""
    for host in hosts:
        if host.canary and host.state is not State.PROMOTED:
            reason = f": {host.reason}" if host.reason else ""
            return (
                f"{host.host}, the canary of {host.hardware or 'its class'}, did not get through"
                f" ({host.state}{reason})"
            )
    return ""
