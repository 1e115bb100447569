# SPDX-License-Identifier: GPL-2.0-only
"""Reads what connections.c reports of a phase. Pure.

The lines are kept as they are in the benchmark's file, so that every figure can be made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# Ways in which a connection failed, as the clients count them.
FAILURES = ("connect", "reset", "incomplete", "wrong", "late")

# "NAME: con-bounces contentions min max total [avg] acq-bounces acquisitions min max total [avg]";
# without the averages on 2.6.32. A lock with readers has a line for them and one for writers.
_LOCK = re.compile(
    r"(?P<name>.+?)(?:-[RW])?: (?P<numbers>\d+ \d+(?: [-\d.]+){8}(?:(?: [-\d.]+){2})?)"
)
_VERSION = re.compile(r"#\d+")


Reader = Callable[[Sequence[str]], dict[str, int]]


class BadReport(ValueError):
    """Lines that are not those of a phase."""


@dataclass(frozen=True)
class Lock:
    """Counts of a class of locks. `bounces`: taken on another CPU than the time before."""

    contentions: int = 0
    bounces: int = 0
    acquisitions: int = 0

    def __add__(self, other: Lock) -> Lock:
        return Lock(
            self.contentions + other.contentions,
            self.bounces + other.bounces,
            self.acquisitions + other.acquisitions,
        )


@dataclass(frozen=True)
class Phase:
    """What happened in a phase.

    `ticks` are of the time stamp counter: instructions where the guest counts them. `accepted`
    are connections accepted, on each CPU. `*_local`: the last packet of so many of them came in on
    the CPU that handled them; on a kernel that cannot tell, 0. `active` are connections that were
    opened, by clients and proxies. `packets`, `dropped` and `steered` are softnet_stat's: packets
    from backlogs, those lost there, and interrupts sent to wake another CPU's backlog. `busy` is
    the part of the CPUs' time that was not idle; 1 when the phase was too short to tell. `steer`
    and `hashes` are steer_stat's and hash_stat's counters by column, empty without the module.
    """

    connections: int
    seconds: float
    ticks: int
    done: int
    failures: Mapping[str, int]
    errors: int
    accepted: tuple[int, ...]
    accepted_local: int
    active: int
    active_local: int
    packets: tuple[int, ...]
    dropped: int
    steered: int
    busy: float
    steer: Mapping[str, int] = field(default_factory=dict)
    hashes: Mapping[str, int] = field(default_factory=dict)
    locks: Mapping[str, Lock] = field(default_factory=dict)
    locks_off: str = ""

    @property
    def failed(self) -> int:
        """Connections that did not do what they should, those never begun included."""
        return self.connections - self.done

    @property
    def rate(self) -> float:
        """Connections a second."""
        return self.done / self.seconds


def parse(lines: Iterable[str]) -> Phase:
    """A phase from its lines. Raises BadReport for lines that lack something."""
    found: dict[str, list[str]] = {}
    for line in lines:
        marker, _, rest = line.strip().partition(" ")
        if marker == "#":
            key, _, text = rest.partition(" ")
            found.setdefault(key, []).append(text)
    try:
        (head,) = found["phase"]
        phase = dict(word.split("=", 1) for word in head.split())
        clients = [_numbers(text) for text in found["client"]]
        servers = [_numbers(text) for text in found["server"]]
        backends = [_numbers(text) for text in found.get("backend", [])]
        softnet = _difference(_softnet, found["softnet"])
        steer = _difference(_columns, found.get("steer", []))
        hashes = _difference(_columns, found.get("hash", []))
        stat = _difference(_stat, found["stat"])
        passed = sum(stat.values())
        return Phase(
            connections=int(phase["connections"]),
            seconds=float(phase["seconds"]),
            ticks=int(phase["ticks"]),
            done=_sum(clients, "done"),
            failures={kind: _sum(clients, kind) for kind in FAILURES},
            errors=_sum(servers, "errors") + _sum(backends, "errors"),
            accepted=tuple(one["accepted"] for one in servers),
            accepted_local=_sum(servers, "local"),
            active=_sum(clients, "done") + _sum(servers, "active"),
            active_local=_sum(clients, "local") + _sum(servers, "active_local"),
            packets=tuple(softnet[f"packets {cpu}"] for cpu in range(len(servers))),
            dropped=softnet["dropped"],
            steered=softnet["steered"],
            busy=1 - stat["idle"] / passed if passed else 1.0,
            steer=steer,
            hashes=hashes,
            locks=parse_locks(found.get("lock", [])),
            locks_off=" ".join(found.get("locks", [])),
        )
    except (KeyError, ValueError) as problem:
        raise BadReport(f"not the report of a phase: {problem!r}") from problem


def parse_locks(lines: Iterable[str]) -> dict[str, Lock]:
    """Locks by the name of their class, from lines of /proc/lock_stat.

    Classes of one name, which lock_stat tells apart by a number, are one. Nested ones are not.
    """
    found: dict[str, Lock] = {}
    for line in lines:
        match = _LOCK.fullmatch(" ".join(line.split()))
        if not match:
            raise ValueError(f"not a line of lock_stat: {line}")
        numbers = match["numbers"].split()
        # Times lie between: three columns of them, or four.
        taken = len(numbers) // 2
        lock = Lock(int(numbers[1]), int(numbers[taken]), int(numbers[taken + 1]))
        name = _VERSION.sub("", match["name"])
        found[name] = found.get(name, Lock()) + lock
    return found


def _numbers(text: str) -> dict[str, int]:
    pairs = (word.split("=", 1) for word in text.split())
    return {name: int(value) for name, value in pairs}


def _sum(counts: Iterable[Mapping[str, int]], name: str) -> int:
    return sum(one[name] for one in counts)


def _difference(read: Reader, lines: Sequence[str]) -> dict[str, int]:
    """Counts after less counts before, of lines that begin with one of the words."""
    before, after = (
        read([line.removeprefix(f"{when} ") for line in lines if line.startswith(f"{when} ")])
        for when in ("before", "after")
    )
    return {name: count - before.get(name, 0) for name, count in after.items()}


def _softnet(lines: Sequence[str]) -> dict[str, int]:
    rows = [[int(word, 16) for word in line.split()] for line in lines]
    counts = {f"packets {cpu}": row[0] for cpu, row in enumerate(rows)}
    # The numbers have 32 bits in the kernel; a guest lives too short to see one wrap.
    return {**counts, "dropped": sum(r[1] for r in rows), "steered": sum(r[9] for r in rows)}


def _columns(lines: Sequence[str]) -> dict[str, int]:
    """Sums of the columns of a table with a row a CPU."""
    if not lines:
        return {}
    names = lines[0].split()[1:]
    rows = [[int(word) for word in line.split()[1:]] for line in lines[1:]]
    return {name: sum(row[at] for row in rows) for at, name in enumerate(names)}


def _stat(lines: Sequence[str]) -> dict[str, int]:
    """The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq."""
    words = lines[0].split()
    if words[0] != "cpu":
        raise ValueError(f"not /proc/stat: {lines[0]}")
    times = [int(word) for word in words[1:8]]
    return {"idle": times[3] + times[4], "busy": sum(times) - times[3] - times[4]}
