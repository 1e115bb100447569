# SPDX-License-Identifier: GPL-2.0-only
"""Plans a rollout: which hosts go together and how long to wait between. Asks and changes nothing.

First one host of each hardware class, the canaries; then shares of the fleet, each class in its
proportion; then the rest. A share with more hosts than may be out of service at the same time goes
in several waves without a soak between them.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fsdeploy.errors import FsdeployError

CANARIES = "canaries"
REST = "the rest"


@dataclass(frozen=True)
class Candidate:
    """A host to be planned. An empty class: nobody knows, it did not answer."""

    name: str
    hardware: str = ""


@dataclass(frozen=True)
class Policy:
    """What the operator allows.

    `shares` are percent of the fleet, a wave each, after the canaries; `soak` is in seconds;
    `budget` is how many hosts may fail over the whole rollout; `at_once` how many hosts one wave
    may have, which is how many boot together.
    """

    shares: tuple[float, ...] = (5.0, 25.0)
    soak: float = 1800.0
    budget: int = 0
    at_once: int = 50

    def __post_init__(self) -> None:
        if any(not 0 < share <= 100 for share in self.shares) or sum(self.shares) > 100:
            raise FsdeployError(
                "the shares of the waves must be percents above 0 with a sum of 100 at most:"
                f" {', '.join(f'{share:g}' for share in self.shares)}",
                hint="for example --waves 5,25: the canaries, 5 %, 25 %, the rest",
            )
        if self.soak < 0 or self.budget < 0 or self.at_once < 1:
            raise FsdeployError(
                "a soak and a budget are not negative, and at least one host goes at once"
            )


@dataclass(frozen=True)
class Wave:
    """Hosts that go through the steps together; `soak` seconds pass before the next wave."""

    number: int
    name: str
    hosts: tuple[Candidate, ...]
    soak: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its hosts, in order."""
        return tuple(host.name for host in self.hosts)

    @property
    def is_canary(self) -> bool:
        """Whether the classes of its hosts wait for it."""
        return self.name.startswith(CANARIES)


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout will do, in order."""

    release: str
    waves: tuple[Wave, ...]
    budget: int = 0

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts, in the order they are reached."""
        return tuple(name for wave in self.waves for name in wave.names)


def plan_rollout(
    release: str, hosts: Sequence[Candidate], policy: Policy | None = None
) -> RolloutPlan:
    """The waves for these hosts. Hosts of an unknown class come last: no canary speaks for them."""
    policy = policy or Policy()
    by_class: dict[str, list[Candidate]] = defaultdict(list)
    for host in hosts:
        by_class[host.hardware].append(host)
    silent = by_class.pop("", [])
    canaries = [members[0] for members in by_class.values()]
    known = _interleaved([members[1:] for members in by_class.values()])
    following = [*known, *silent]
    groups = [(CANARIES, canaries)]
    for share in policy.shares:
        size = math.ceil(len(hosts) * share / 100)
        groups.append((f"{share:g} %", following[:size]))
        following = following[size:]
    groups.append((REST, following))
    waves: list[Wave] = []
    for name, members in groups:
        parts = _parts(members, policy.at_once)
        for part, chosen in enumerate(parts, 1):
            title = name if len(parts) == 1 else f"{name}, part {part} of {len(parts)}"
            soak = policy.soak if part == len(parts) else 0.0
            waves.append(Wave(len(waves) + 1, title, tuple(chosen), soak))
    if waves:
        last = waves[-1]
        waves[-1] = Wave(last.number, last.name, last.hosts)
    return RolloutPlan(release, tuple(waves), policy.budget)


def _interleaved(classes: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """The hosts so that every beginning of the list has its part of each class."""
    # The i-th of n hosts stands at (i + 1/2) / n; among equals the class that came first.
    places = [
        ((2 * index + 1) / (2 * len(members)), order, host)
        for order, members in enumerate(classes)
        for index, host in enumerate(members)
    ]
    places.sort(key=lambda place: place[:2])
    return [host for _, _, host in places]


def _parts(hosts: Sequence[Candidate], limit: int) -> list[Sequence[Candidate]]:
    """Cut into as few parts as the limit allows, of sizes that differ by one at most."""
    count = math.ceil(len(hosts) / limit)
    edges = [len(hosts) * index // count for index in range(count + 1)] if count else []
    return [hosts[first:last] for first, last in itertools.pairwise(edges)]
