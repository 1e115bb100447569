# SPDX-License-Identifier: GPL-2.0-only
"""Figures and tables from the record of a benchmark. Pure.

Rates are compared in pairs: a configuration's and stock's of the same repetition and number of
CPUs, measured one right after the other. The figure is the median of those ratios. A guest in
which anything failed is in no figure; it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fsdeploy.bench import measure, plan
from fsdeploy.bench.measure import Lock, Phase

# Column to classes of lock_stat, by target. What a class is called is how it is initialised.
LOCKS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "el6": {
        "dcache_lock": ("dcache_lock",),
        "inode_lock": ("inode_lock",),
        "slock-AF_INET": ("slock-AF_INET",),
        "nested": ("slock-AF_INET/1",),
        "ep->lock": ("&ep->lock",),
        "epmutex": ("epmutex",),
        "base->lock": ("&base->lock",),
        # and the locks of the cores' own tables; of the parts of a port that clones have; of the
        # cores' own TIME-WAIT
        "ehash": ("&hashinfo->ehash_locks[i]", "&est->lock[i]"),
        "bhash": ("&tcp_hashinfo.bhash[i].lock", "&core->lock"),
        "death_lock": ("tcp_death_row.death_lock", "&row->death_lock"),
    },
    "lts61": {
        "d_lock": ("&dentry->d_lock",),
        "i_lock": ("&sb->s_type->i_lock_key",),
        "slock-AF_INET": ("slock-AF_INET",),
        "nested": ("slock-AF_INET/1",),
        "ep->lock": ("&ep->lock",),
        "epmutex": ("epmutex",),
        "base->lock": ("&base->lock",),
        "ehash": ("&ptr[i]",),
        "bhash": ("&tcp_hashinfo.bhash[i].lock", "&tcp_hashinfo.bhash2[i].lock"),
    },
}

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table as `ui.table` takes it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sample:
    """The measured phases of a guest in which nothing failed."""

    measure: str
    configuration: str
    cpus: int
    repetition: int
    phases: tuple[Phase, ...]

    @property
    def last(self) -> Phase:
        """The phase that is measured."""
        return self.phases[-1]


@dataclass(frozen=True)
class Ratio:
    """A median with the lowest and the highest of what it is made of."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def read(record: Mapping[str, Any]) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The good guests of a record, and a line for each thing that was wrong in the others."""
    samples: list[Sample] = []
    problems: list[str] = []
    for one in record["runs"]:
        name = f"{one['measure']}, {one['configuration']}, {one['cpus']} CPUs"
        wrong = list(one["failures"])
        phases: list[Phase] = []
        try:
            phases = [measure.parse(lines) for lines in one["phases"]]
        except measure.BadReport as problem:
            wrong.append(str(problem))
        for phase in phases:
            if phase.failed or phase.errors:
                kinds = [f"{count} {kind}" for kind, count in phase.failures.items() if count]
                wrong.append(
                    f"{phase.failed} of {phase.connections} connections failed"
                    f" ({', '.join(kinds) or 'not begun'}), {phase.errors} errors of servers"
                )
            if phase.locks_off:
                wrong.append(phase.locks_off)
        problems += [f"{name}, repetition {one['repetition'] + 1}: {line}" for line in wrong]
        if not wrong:
            samples.append(
                Sample(
                    one["measure"],
                    one["configuration"],
                    one["cpus"],
                    one["repetition"],
                    tuple(phases),
                )
            )
    return tuple(samples), tuple(problems)


def ratios(samples: Iterable[Sample], configuration: str, cpus: int) -> Ratio | None:
    """A configuration's rate to that of stock in the same repetition; None without a pair."""
    rates = {
        (one.configuration, one.repetition): one.last.rate
        for one in samples
        if one.measure == plan.RATES and one.cpus == cpus
    }
    pairs = [
        rate / rates[plan.STOCK, repetition]
        for (name, repetition), rate in rates.items()
        if name == configuration and (plan.STOCK, repetition) in rates
    ]
    return Ratio(median(pairs), min(pairs), max(pairs)) if pairs else None


def instructions(sample: Sample) -> float:
    """Instructions of a connection: those of twice as many connections less those of once.

    What a phase costs however long it is falls out of the difference.
    """
    some, twice = sample.phases[-2:]
    return (twice.ticks - some.ticks) / (twice.connections - some.connections)


def tables(record: Mapping[str, Any]) -> tuple[Table, ...]:
    """What a person reads: one table for each measure that was taken."""
    samples, _ = read(record)
    request = record["request"]
    makers: Mapping[str, Callable[[Sequence[Sample], Mapping[str, Any]], list[Table]]] = {
        plan.RATES: _rates,
        plan.COUNTS: _counts,
        plan.INSTRUCTIONS: _instructions,
    }
    return tuple(
        table
        for name in request["measures"]
        for table in makers[name]([one for one in samples if one.measure == name], request)
    )


def _rates(samples: Sequence[Sample], request: Mapping[str, Any]) -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for cpus, name, here in _cells(samples, request):
        ratio = ratios(samples, name, cpus)
        rows.append(
            (
                str(cpus),
                name,
                str(len(here)),
                f"{median(one.last.rate for one in here):.0f}" if here else NONE,
                "1" if here and name == plan.STOCK else str(ratio or NONE),
            )
        )
    columns = ("CPUs", "kernel", "guests", "connections/s", "to stock (lowest to highest)")
    return [Table("Rates, medians", columns, tuple(rows))]


def _counts(samples: Sequence[Sample], request: Mapping[str, Any]) -> list[Table]:
    classes = LOCKS[request["target"]]
    seen = {name for one in samples for name in one.last.locks}
    named = {name for names in classes.values() for name in names}
    lock_rows: list[tuple[str, ...]] = []
    core_rows: list[tuple[str, ...]] = []
    for cpus, name, here in _cells(samples, request):
        cells = [
            # A class that never showed up is one that this kernel calls otherwise.
            _lock(here, names) if here and seen & set(names) else NONE
            for names in classes.values()
        ]
        rest = [other for other in sorted(seen) if other not in named]
        lock_rows.append((str(cpus), name, *cells, _lock(here, rest) if here else NONE))
        core_rows.append((str(cpus), name, *_cores(here)))
    return [
        Table(
            "Locks: contentions / acquisitions after another CPU, per 1,000 connections",
            ("CPUs", "kernel", *classes, "all others"),
            tuple(lock_rows),
        ),
        Table(
            "Cores: handled on the CPU that the packets came in on",
            (
                "CPUs",
                "kernel",
                "accepted",
                "opened",
                "packets steered to their core",
                "packets per connection",
                "to another CPU's backlog, interrupts per 1,000",
                "lost",
            ),
            tuple(core_rows),
        ),
    ]


def _lock(samples: Sequence[Sample], names: Iterable[str]) -> str:
    wanted = tuple(names)

    def middle(count: Callable[[Lock], int]) -> float:
        return median(
            1000 * sum(count(one.last.locks.get(name, Lock())) for name in wanted) / one.last.done
            for one in samples
        )

    contentions = _short(middle(lambda lock: lock.contentions))
    return f"{contentions} / {_short(middle(lambda lock: lock.bounces))}"


def _short(value: float) -> str:
    """Whole numbers; a tenth where it is all there is."""
    return f"{value:.1f}" if 0 < value < 1 else f"{value:,.0f}"


def _cores(samples: Sequence[Sample]) -> tuple[str, ...]:
    if not samples:
        return (NONE,) * 6
    phases = [one.last for one in samples]
    # A kernel without SO_INCOMING_CPU says "no" of every connection, on one CPU too.
    told = any(phase.accepted_local or phase.active_local for phase in phases)
    accepted = [
        (phase.accepted_local, sum(phase.accepted)) if told else _from_clones(phase)
        for phase in phases
    ]
    steered = [
        (phase.steer["Steer_local"] + phase.steer["Steer_remote"], phase.steer["Steer_total"])
        for phase in phases
        if phase.steer.get("Steer_total")
    ]
    return (
        _share(accepted),
        _share((phase.active_local, phase.active) for phase in phases) if told else NONE,
        _share(steered),
        f"{median(sum(phase.packets) / phase.done for phase in phases):.1f}",
        _short(median(1000 * phase.steered / phase.done for phase in phases)),
        str(sum(phase.dropped for phase in phases)),
    )


def _from_clones(phase: Phase) -> tuple[int, int]:
    """Connections accepted from the clone of the core, and all, by hash_stat; (0, 0) without it."""
    local = phase.hashes.get("Loc_accept", 0)
    return local, local + phase.hashes.get("Rem_accept", 0) + phase.hashes.get("Glo_accept", 0)


def _share(pairs: Iterable[tuple[int, int]]) -> str:
    shares = [part / whole for part, whole in pairs if whole]
    return f"{100 * median(shares):.0f} %" if shares else NONE


def _instructions(samples: Sequence[Sample], request: Mapping[str, Any]) -> list[Table]:
    found: dict[str, list[float]] = {}
    for one in samples:
        found.setdefault(one.configuration, []).append(instructions(one))
    rows: list[tuple[str, ...]] = []
    for name in request["configurations"]:
        counts = found.get(name, [])
        stock = found.get(plan.STOCK, [])
        busy = [one.last.busy for one in samples if one.configuration == name]
        rows.append(
            (
                name,
                str(len(counts)),
                f"{median(counts):,.0f} ({min(counts):,.0f} to {max(counts):,.0f})"
                if counts
                else NONE,
                f"{median(counts) / median(stock):.3f}" if counts and stock else NONE,
                f"{100 * (1 - median(busy)):.0f} %" if busy else NONE,
            )
        )
    columns = ("kernel", "guests", "median (lowest to highest)", "to stock", "idle")
    title = "Instructions per connection, client and server together, 1 CPU"
    return [Table(title, columns, tuple(rows))]


def _cells(
    samples: Sequence[Sample], request: Mapping[str, Any]
) -> Iterable[tuple[int, str, list[Sample]]]:
    """Every row there should be, with its samples."""
    for cpus in dict.fromkeys(request["cpus"]):
        for name in request["configurations"]:
            yield (
                cpus,
                name,
                [one for one in samples if (one.cpus, one.configuration) == (cpus, name)],
            )


def conditions(record: Mapping[str, Any]) -> str:
    """Under which circumstances the figures were taken."""
    request, host = record["request"], record["host"]
    loads = [load for one in record["runs"] for load in one["load"]]
    return (
        f"{request['target']}, {request['mode']} mode, {request['connections']:,} connections a "
        f"guest, {request['repeat']} times, RPS {'on' if request['rps'] else 'off'}; host "
        f"with {host['cpus']} CPUs, load {min(loads):.1f} to {max(loads):.1f}. "
        "Rates under QEMU compare kernels, they are not those of a machine."
    )
