# SPDX-License-Identifier: GPL-2.0-only
"""Plans a rollout: which hosts go together and what happens to them. Asks and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsdeploy.fleet.journal import State

# The steps of a host, in order: (state it is in afterwards, what is done).
STEPS: tuple[tuple[State, str], ...] = (
    (State.PREFLIGHT, "look at the host, change nothing"),
    (State.STAGED, "copy the package, check it, install it beside the running kernel"),
    (State.ARMED, "let the boot loader start it once"),
    (State.TRIAL, "boot"),
    (State.VERIFIED, "run the checks on it"),
    (State.PROMOTED, "make it the default"),
)


@dataclass(frozen=True)
class Wave:
    """Hosts that go through the steps together."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout will do, in order."""

    release: str
    waves: tuple[Wave, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts, in the order they are reached."""
        return tuple(host for wave in self.waves for host in wave.hosts)


def plan_rollout(release: str, hosts: Sequence[str]) -> RolloutPlan:
    """One host first, then the rest: what is wrong shows on one host only."""
    if not hosts:
        return RolloutPlan(release, ())
    waves = [Wave("first host", (hosts[0],))]
    if len(hosts) > 1:
        waves.append(Wave("the rest", tuple(hosts[1:])))
    return RolloutPlan(release, tuple(waves))
