# SPDX-License-Identifier: GPL-2.0-only
"""What a host looks like to tuning: the texts that its host module collects, and their meaning.

A snapshot holds files of /proc and /sys as they were read. It can be kept as a file
(`fsdeploy tune --collect`) and planned from later, on another machine.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy.tuning.cpus import parse_list

_FORMAT = 1
_IFF_UP = 1
_NET = "/sys/class/net/"
_CPU = "/sys/devices/system/cpu/"
_NODE = "/sys/devices/system/node/"

# What follows an interface's or a virtio device's name in the name of an interrupt.
_QUEUE = re.compile(
    r"(?P<kind>txrx|tx-rx|rxtx|rx-tx|rx|tx|fp|q|input|output|virtqueues)?[-.]?(?P<number>\d+)?",
    re.IGNORECASE,
)
# Cards that name their interrupts by their place on the bus.
_BY_BUS = re.compile(
    r"mlx5_comp(?P<five>\d+)@(?:pci:)?(?P<bus5>.+)|mlx4-(?P<four>\d+)@(?P<bus4>.+)"
)


class Role(StrEnum):
    """What an interrupt is for."""

    RX = "rx"
    TX = "tx"
    BOTH = "both"


@dataclass(frozen=True)
class Interrupt:
    """A line of /proc/interrupts; a shared one has several names."""

    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class QueueInterrupt:
    """The interrupt of one queue, numbered from 0 in its role."""

    name: str
    number: int
    role: Role
    queue: int


@dataclass(frozen=True)
class Interface:
    """A network card. `node` is None when its place is not known.

    Its queues are folders of /sys: those that receive with RPS, those that send with XPS. There are
    none in a kernel without it.
    """

    name: str
    driver: str
    is_up: bool
    node: int | None
    rx_queues: tuple[str, ...]
    tx_queues: tuple[str, ...]
    interrupts: tuple[QueueInterrupt, ...]


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket."""

    port: int
    is_loopback: bool


@dataclass(frozen=True)
class Irqbalance:
    """The irqbalance of a host; empty where it is not installed."""

    program: str = ""
    config: str = ""
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A host. `files` are texts by path, `links` the last names of what links lead to."""

    files: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)
    ethtool: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    irqbalance: Irqbalance = Irqbalance()

    def text(self, path: str) -> str:
        """A file's text without its end; empty when it is not there."""
        return self.files.get(path, "").strip()

    @functools.cached_property
    def online(self) -> tuple[int, ...]:
        """The CPUs that run."""
        return parse_list(self.text(_CPU + "online"))

    @functools.cached_property
    def width(self) -> int:
        """How many CPUs there can be: the bits of a mask."""
        possible = self.text(_CPU + "possible") or self.text(_CPU + "online")
        return max(parse_list(possible)) + 1

    @functools.cached_property
    def nodes(self) -> Mapping[int, tuple[int, ...]]:
        """The running CPUs of each NUMA node; empty where the kernel knows of none."""
        found = {}
        for path, text in self.files.items():
            match = re.fullmatch(re.escape(_NODE) + r"node(\d+)/cpulist", path)
            if match and text.strip():
                found[int(match[1])] = tuple(cpu for cpu in parse_list(text) if cpu in self.online)
        return dict(sorted(found.items()))

    def siblings(self, cpu: int) -> tuple[int, ...]:
        """The CPUs that are threads of the same core, this one included."""
        text = self.text(f"{_CPU}cpu{cpu}/topology/thread_siblings_list")
        return parse_list(text) if text else (cpu,)

    @functools.cached_property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """The numbered interrupts with what they are for."""
        return parse_interrupts(self.files.get("/proc/interrupts", ""))

    @functools.cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """The network cards."""
        names = sorted(
            path[len(_NET) : -len("/device")]
            for path in self.links
            if path.startswith(_NET) and path.endswith("/device")
        )
        return tuple(self._interface(name) for name in names)

    def _interface(self, name: str) -> Interface:
        base = _NET + name
        node = self.text(f"{base}/device/numa_node")
        driver = self.links.get(f"{base}/device/driver", "")
        flags = self.text(f"{base}/flags")
        return Interface(
            name,
            driver,
            bool(flags and int(flags, 16) & _IFF_UP),
            int(node) if node and int(node) >= 0 else None,
            self._queues(name, "rx", "rps_cpus"),
            self._queues(name, "tx", "xps_cpus"),
            queue_interrupts(self.interrupts, name, self.links[f"{base}/device"], driver),
        )

    def _queues(self, interface: str, direction: str, attribute: str) -> tuple[str, ...]:
        head = f"{_NET}{interface}/queues/{direction}-"
        pattern = re.compile(rf"{re.escape(head)}(\d+)/{attribute}")
        numbers = {int(match[1]) for path in self.files if (match := pattern.fullmatch(path))}
        return tuple(f"{head}{number}" for number in sorted(numbers))

    @functools.cached_property
    def listeners(self) -> tuple[Listener, ...]:
        """The listening TCP sockets."""
        return tuple(
            listener
            for path in ("/proc/net/tcp", "/proc/net/tcp6")
            for listener in parse_listeners(self.files.get(path, ""))
        )

    def is_on(self, *parameters: str) -> bool:
        """Whether one of these module parameters is there and not 0."""
        words = (self.text(f"/sys/module/{name}") for name in parameters)
        return any(word not in ("", "0", "N") for word in words)

    @property
    def has_listen_spawn(self) -> bool:
        """Whether listening sockets get a clone a core."""
        return self.is_on("fastsocket/parameters/enable_listen_spawn")

    @property
    def has_receive_flow_deliver(self) -> bool:
        """Whether the kernel steers packets of connections that this host makes."""
        return self.is_on(
            "fastsocket/parameters/enable_receive_flow_deliver",
            "rfd/parameters/enable_receive_flow_deliver",
        )


def parse_interrupts(text: str) -> tuple[Interrupt, ...]:
    """The numbered lines of /proc/interrupts; names come last, after two blanks at least."""
    found = []
    for line in text.splitlines()[1:]:
        number, colon, rest = line.partition(":")
        if not colon or not number.strip().isdecimal():
            continue
        names = re.split(r"\s{2,}", rest.strip())[-1].split(",")
        found.append(Interrupt(int(number), tuple(name.strip() for name in names if name.strip())))
    return tuple(found)


def _place(name: str, interface: str, device: str, driver: str) -> tuple[str, int | None] | None:
    """Kind and number of an interrupt that is the interface's; ("", None) is all of it."""
    match = _BY_BUS.fullmatch(name)
    if match and device in (match["bus5"], match["bus4"]):
        return "q", int(match["five"] or match["four"])
    for prefix in (f"{driver}-{interface}", interface, device):
        if name == prefix:
            return "", None
        rest = name.removeprefix(prefix)
        if rest != name and rest[0] in "-:.@" and (match := _QUEUE.fullmatch(rest[1:])):
            number = match["number"]
            return (match["kind"] or "").lower(), int(number) if number else None
    return None


def queue_interrupts(
    interrupts: tuple[Interrupt, ...], interface: str, device: str, driver: str
) -> tuple[QueueInterrupt, ...]:
    """The interrupts of an interface's queues, recognised by the drivers' ways of naming them.

    Drivers count from 0 or 1; a queue's number here is its place among those of its role. The one
    for link changes and the like is left out, unless it is the only one and serves everything.
    """
    whole: list[tuple[str, int]] = []
    queues: list[tuple[Role, int, str, int]] = []
    for interrupt in interrupts:
        for name in interrupt.names:
            place = _place(name, interface, device, driver)
            if place is None:
                continue
            kind, number = place
            if not kind and number is None:
                whole.append((name, interrupt.number))
                continue
            role = {"rx": Role.RX, "input": Role.RX, "tx": Role.TX, "output": Role.TX}.get(
                kind, Role.BOTH
            )
            queues.append((role, number or 0, name, interrupt.number))
    if driver == "tg3" and len(queues) > 1:
        # Its first interrupt has the link and what was sent, the others what is received.
        queues = [
            (role if role is not Role.BOTH else Role.RX if number else Role.TX, number, name, line)
            for role, number, name, line in queues
        ]
    if not queues:
        return tuple(QueueInterrupt(name, line, Role.BOTH, 0) for name, line in whole[:1])
    found = []
    for role in Role:
        own = sorted((number, line, name) for kind, number, name, line in queues if kind is role)
        found += [
            QueueInterrupt(name, line, role, queue) for queue, (_, line, name) in enumerate(own)
        ]
    return tuple(found)


def parse_listeners(text: str) -> tuple[Listener, ...]:
    """The listening sockets of a /proc/net/tcp or tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 4 or words[3] != "0A":
            continue
        address, _, port = words[1].partition(":")
        # In the host's byte order: 127.0.0.1 ends with 7F; ::1 and ::ffff:127.0.0.1.
        loopback = (
            address[-2:] == "7F"
            if len(address) == 8
            else address == "0" * 24 + "01000000"
            or (address.startswith("0" * 16 + "FFFF0000") and address[-2:] == "7F")
        )
        found.append(Listener(int(port, 16), loopback))
    return tuple(found)


def snapshot_from(document: Any, where: str) -> Snapshot:
    """A snapshot from what the host module returned or a file holds; FsdeployError otherwise."""
    try:
        if document["format"] != _FORMAT:
            raise FsdeployError(
                f"{where} has format {document['format']}, {_FORMAT} was expected",
                hint="collect it again: fsdeploy tune --collect",
            )
        balance = document["irqbalance"]
        snapshot = Snapshot(
            dict(document["files"]),
            dict(document["links"]),
            {name: dict(fields) for name, fields in document["ethtool"].items()},
            Irqbalance(balance["program"], balance["config"], tuple(balance["arguments"])),
        )
        _ = snapshot.online, snapshot.width, snapshot.nodes, snapshot.interfaces, snapshot.listeners
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise FsdeployError(
            f"{where} is not a snapshot of a host: {problem}",
            hint="fsdeploy tune --collect writes one",
        ) from None
    return snapshot


def load_snapshot(text: str, where: str) -> Snapshot:
    """A snapshot from the text of a file that `fsdeploy tune --collect` wrote."""
    try:
        return snapshot_from(json.loads(text), where)
    except json.JSONDecodeError as problem:
        raise FsdeployError(
            f"{where} is not JSON: {problem}", hint="fsdeploy tune --collect writes one"
        ) from None
