# SPDX-License-Identifier: GPL-2.0-only
"""What a benchmark runs, and in which order. Pure.

A *configuration* is a kernel build, `stock` or `patched`, and the features that are used on top:
`patched+rfd`. Adding a feature is adding an entry to FEATURES.

Rates of two guests can only be compared when the machine was the same to both, so each repetition
runs every configuration, one right after the other, and every second repetition backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fsdeploy.errors import FsdeployError

STOCK = "stock"
PATCHED = "patched"
BASES = (STOCK, PATCHED)

RATES = "rates"
COUNTS = "counts"
INSTRUCTIONS = "instructions"
MEASURES: Mapping[str, str] = {
    RATES: "connections a second, as a ratio to stock",
    COUNTS: "locks and cores by the kernel's own count, in a kernel with lock_stat",
    INSTRUCTIONS: "instructions of the guest for a connection, on one CPU",
}

MODES: Mapping[str, str] = {
    "server": "each connection is answered by the worker that accepts it",
    "proxy": "each connection is relayed to a backend over another one",
}

MAX_CPUS = 32  # a CPU mask in sysfs is one group of 32 bits
PHASE_LIMIT = 300  # seconds
_LEAST = 50  # connections of a phase

_RPS_MASK = "/sys/class/net/lo/queues/rx-0/rps_cpus"


@dataclass(frozen=True)
class Feature:
    """Something a configuration can use.

    `offered` names the bases that have it, by target. `switch` is the file in the guest that turns
    it on and off, by target. `own_listeners`: each worker listens on a socket of its own; `spawn`:
    each asks for a clone of the one they share.
    """

    title: str
    offered: Mapping[str, tuple[str, ...]]
    switch: Mapping[str, str] = field(default_factory=dict)
    own_listeners: bool = False
    spawn: bool = False


_PARAMETERS = "/sys/module/fastsocket/parameters"


FEATURES: Mapping[str, Feature] = {
    # Red Hat's 2.6.32-431 has it, with the sharing out of connections among listeners.
    "reuseport": Feature(
        title="each worker listens on a socket of its own, by SO_REUSEPORT",
        offered={"el6": BASES, "lts61": BASES},
        own_listeners=True,
    ),
    "listen": Feature(
        title="local listen table",
        offered={"el6": (PATCHED,)},
        switch={"el6": f"{_PARAMETERS}/enable_listen_spawn"},
        spawn=True,
    ),
    "rfd": Feature(
        title="Receive Flow Deliver",
        offered={"el6": (PATCHED,), "lts61": (PATCHED,)},
        switch={
            "el6": f"{_PARAMETERS}/enable_receive_flow_deliver",
            "lts61": "/sys/module/rfd/parameters/enable_receive_flow_deliver",
        },
    ),
    "established": Feature(
        title="local established table",
        offered={"el6": (PATCHED,)},
        switch={"el6": f"{_PARAMETERS}/enable_local_established"},
    ),
    "epoll": Feature(
        title="fast epoll",
        offered={"el6": (PATCHED,)},
        switch={"el6": f"{_PARAMETERS}/enable_fast_epoll"},
    ),
}


@dataclass(frozen=True)
class Configuration:
    """A kernel build and what is used on top."""

    base: str
    features: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As on the command line, in reports and in files."""
        return "+".join((self.base, *self.features))

    @property
    def stock(self) -> bool:
        """Whether it runs on the build without our features."""
        return self.base == STOCK


@dataclass(frozen=True)
class Request:
    """What to compare. `connections` is how many of them a guest makes when it is measured."""

    target: str
    configurations: tuple[Configuration, ...]
    cpus: tuple[int, ...]
    repeat: int = 5
    connections: int = 10000
    mode: str = "server"
    rps: bool = False
    measures: tuple[str, ...] = tuple(MEASURES)


@dataclass(frozen=True)
class Run:
    """One guest."""

    measure: str
    configuration: Configuration
    cpus: int
    repetition: int

    def __str__(self) -> str:
        return f"{self.measure}, {self.configuration.name}, {self.cpus} CPUs, {self.repetition + 1}"


def configuration(target: str, text: str) -> Configuration:
    """A configuration by its name.

    Features alone, `rfd`, are used on the first base that has them. Raises FsdeployError for what
    does not exist or is not offered on that base.
    """
    words = text.split("+")
    base = words[0] if words[0] in BASES else ""
    features = tuple(dict.fromkeys(words[1:] if base else words))
    for name in features:
        if name not in FEATURES:
            raise FsdeployError(
                f"{text}: there is no feature {name}",
                hint=f"{target} has {', '.join(offers(target))}",
            )
    candidates = [base] if base else BASES
    for candidate in candidates:
        if all(candidate in FEATURES[name].offered.get(target, ()) for name in features):
            return Configuration(candidate, features)
    raise FsdeployError(
        f"{text}: no {f'{base} ' if base else ''}kernel of {target} has "
        + " and ".join(f"{name} ({FEATURES[name].title})" for name in features),
        hint=f"{target} has {', '.join(offers(target))}",
    )


def offers(target: str) -> tuple[str, ...]:
    """Every base of a target, alone and with each feature it has."""
    return tuple(
        name
        for base in BASES
        for name in (
            base,
            *(
                f"{base}+{feature}"
                for feature, one in FEATURES.items()
                if base in one.offered.get(target, ())
            ),
        )
    )


def check(request: Request) -> None:
    """Refuse what cannot be run or would say nothing."""
    names = [one.name for one in request.configurations]
    if len(set(names)) != len(names):
        raise FsdeployError(f"a configuration is named twice: {', '.join(names)}")
    if STOCK not in names:
        raise FsdeployError(
            "stock is not among the kernels",
            hint="every figure is compared with stock of the same run: add it",
        )
    if not request.cpus or not all(1 <= count <= MAX_CPUS for count in request.cpus):
        raise FsdeployError(f"a guest has 1 to {MAX_CPUS} CPUs")
    if request.repeat < 1 or request.connections < 1 or not request.measures:
        raise FsdeployError("nothing to run")


def runs(request: Request) -> tuple[Run, ...]:
    """Every guest, in the order they run.

    Instructions are counted on one CPU: with more there would be waiting in them. A guest that
    counts does the same each time, so its repetitions differ by their random numbers.
    """
    return tuple(
        Run(measure, one, cpus, repetition)
        for measure in request.measures
        for repetition in range(request.repeat)
        for cpus in ((1,) if measure == INSTRUCTIONS else dict.fromkeys(request.cpus))
        for one in _ordered(request.configurations, repetition)
    )


def _ordered(configurations: Sequence[Configuration], repetition: int) -> tuple[Configuration, ...]:
    return tuple(reversed(configurations)) if repetition % 2 else tuple(configurations)


def phases(request: Request, measure: str) -> tuple[int, ...]:
    """Connections of each phase of a guest; the first only warms up.

    A tenth of the connections shows the instructions of one as well as all of them would.
    """
    if measure == INSTRUCTIONS:
        some = max(_LEAST, request.connections // 10)
        return (_LEAST, some, 2 * some)
    return (max(_LEAST, request.connections // 10), request.connections)


def switches(target: str, one: Configuration) -> dict[str, str]:
    """What to write to which switch: all of the target's are set, or none where none is wanted.

    So a configuration without one runs on a kernel without our modules.
    """
    known = {
        name: feature.switch[target]
        for name, feature in FEATURES.items()
        if target in feature.switch
    }
    if not set(known) & set(one.features):
        return {}
    return {path: str(int(name in one.features)) for name, path in known.items()}


def environment(request: Request, run: Run) -> dict[str, str]:
    """What the program in the guest is told."""
    features = [FEATURES[name] for name in run.configuration.features]
    settings = switches(request.target, run.configuration)
    if request.rps:
        settings[_RPS_MASK] = f"{(1 << run.cpus) - 1:x}"
    return {
        "BENCH_MODE": request.mode,
        "BENCH_LISTENERS": "own" if any(one.own_listeners for one in features) else "shared",
        "BENCH_SPAWN": str(int(any(one.spawn for one in features))),
        "BENCH_PHASES": ",".join(map(str, phases(request, run.measure))),
        "BENCH_SECONDS": str(PHASE_LIMIT),
        "BENCH_SETTINGS": " ".join(f"{path}={value}" for path, value in settings.items()),
        "BENCH_COUNTS": str(int(run.measure == COUNTS)),
    }
