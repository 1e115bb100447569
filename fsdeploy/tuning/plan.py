# SPDX-License-Identifier: GPL-2.0-only
"""Plans a host's tuning: from its snapshot and a choice of CPUs to settings. Pure.

A card's queues get a CPU each, on the card's own NUMA node first. From that everything else
follows: what is sent by a CPU goes out by that CPU's queue (XPS) when there is a queue for each,
and the kernel spreads what is received (RPS) only when there is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fsdeploy.errors import FsdeployError
from fsdeploy.tuning.cpus import list_text, mask_text, parse_list
from fsdeploy.tuning.settings import Kind, Setting
from fsdeploy.tuning.snapshot import Interface, Role, Snapshot

# A third of a millisecond: 3,000 interrupts a second and queue at most.
COALESCE_USECS = 333

# The lowest port for outgoing connections. Below it are most ports that servers are given.
LOWEST_PORT = 10240
HIGHEST_PORT = 65535

# Sysctls that are raised to a value when they are below it.
_AT_LEAST = (
    ("net/core/somaxconn", 16384, "the longest queue of connections that a server can ask for"),
    ("net/ipv4/tcp_max_syn_backlog", 16384, "connections that are being made"),
    ("net/core/netdev_max_backlog", 16384, "packets that wait for a CPU they were steered to"),
    ("fs/file-max", 1048576, "open files of the whole host"),
)

# A listener there is for the operator; it makes no host a server.
_SSH_PORT = 22


class Spread(StrEnum):
    """Which CPUs serve a card's queues, in words."""

    ALL = "all"  # its own node's first, then the others
    LOCAL = "local"  # only its own node's
    REMOTE = "remote"  # only other nodes'
    ONE = "one"  # a single one


@dataclass(frozen=True)
class Choice:
    """Which CPUs serve a card's queues: a word, or the CPUs themselves."""

    spread: Spread = Spread.ALL
    cpus: tuple[int, ...] = ()


def parse_choice(text: str) -> Choice:
    """From `all|local|remote|one|CPULIST`; FsdeployError otherwise."""
    if text in tuple(Spread):
        return Choice(Spread(text))
    try:
        return Choice(cpus=parse_list(text))
    except ValueError:
        raise FsdeployError(
            f"--cpus {text}: all, local, remote, one or a list like 0-3,8 was expected"
        ) from None


@dataclass(frozen=True)
class Plan:
    """What a host should be set to, and what should be known about it."""

    settings: tuple[Setting, ...]
    notes: tuple[str, ...] = ()


def _cores_first(snapshot: Snapshot, cpus: Sequence[int]) -> list[int]:
    """One CPU of each core before the second threads of any."""
    rank = {cpu: snapshot.siblings(cpu).index(cpu) for cpu in cpus}
    return sorted(cpus, key=lambda cpu: (rank[cpu], cpu))


def choose_cpus(snapshot: Snapshot, interface: Interface, choice: Choice) -> tuple[int, ...]:
    """The CPUs for a card's queues, in the order they are used.

    FsdeployError when the choice leaves none. A card whose node is unknown is near every CPU.
    """
    if choice.cpus:
        absent = [cpu for cpu in choice.cpus if cpu not in snapshot.online]
        if absent:
            raise FsdeployError(
                f"CPU {absent[0]} does not run on this host",
                hint=f"it has {list_text(snapshot.online)}",
            )
        return choice.cpus
    everything = snapshot.online
    local = everything
    if interface.node is not None and snapshot.nodes.get(interface.node):
        local = snapshot.nodes[interface.node]
    near = _cores_first(snapshot, local)
    far = _cores_first(snapshot, [cpu for cpu in everything if cpu not in local])
    if choice.spread is Spread.REMOTE and not far:
        raise FsdeployError(
            f"{interface.name} has no CPUs of another NUMA node",
            hint="--cpus all or --cpus local",
        )
    return {
        Spread.ALL: (*near, *far),
        Spread.LOCAL: tuple(near),
        Spread.REMOTE: tuple(far),
        Spread.ONE: tuple(near[:1]),
    }[choice.spread]


def is_serving(snapshot: Snapshot) -> bool:
    """Whether others connect to this host, by something else than SSH."""
    return any(
        not listener.is_loopback and listener.port != _SSH_PORT for listener in snapshot.listeners
    )


def plan_tuning(snapshot: Snapshot, choice: Choice) -> Plan:
    """The settings for a host. FsdeployError when the choice does not fit it."""
    settings: list[Setting] = []
    notes: list[str] = []
    # Queues that a CPU list has been given by earlier cards: the next card goes on from there.
    given: dict[tuple[int, ...], int] = {}
    for interface in snapshot.interfaces:
        if not interface.is_up:
            notes.append(f"{interface.name} is down and left alone")
            continue
        cpus = choose_cpus(snapshot, interface, choice)
        if not interface.interrupts:
            notes.append(f"{interface.name} ({interface.driver}): no interrupt of its queues found")
        start = given.get(cpus, 0) % len(cpus)
        cpus_from = (*cpus[start:], *cpus[:start])
        queues = _receiving(interface)
        given[cpus] = given.get(cpus, 0) + queues
        settings += _interrupts(snapshot, interface, cpus_from)
        settings += _xps(snapshot, interface, cpus_from)
        settings += _rps(snapshot, interface, cpus_from, queues, notes)
        settings.append(
            Setting(
                Kind.COALESCE,
                interface.name,
                f"adaptive-rx=0 rx-usecs={COALESCE_USECS}",
                "fewer interrupts, the same number at every load",
            )
        )
    settings += _rfs(snapshot)
    settings += _irqbalance(snapshot, settings)
    settings += _ports(snapshot)
    settings += _limits(snapshot)
    return Plan(tuple(settings), tuple(notes))


def _receiving(interface: Interface) -> int:
    """How many queues a card receives by: as many as have an interrupt."""
    own = [interrupt for interrupt in interface.interrupts if interrupt.role is not Role.TX]
    return len(own) or max(1, len(interface.rx_queues))


def _interrupts(snapshot: Snapshot, interface: Interface, cpus: Sequence[int]) -> list[Setting]:
    found = []
    for interrupt in interface.interrupts:
        cpu = cpus[interrupt.queue % len(cpus)]
        what = "" if interrupt.role is Role.BOTH else f"{interrupt.role} "
        found.append(
            Setting(
                Kind.INTERRUPT,
                interrupt.name,
                mask_text([cpu], snapshot.width),
                f"{interface.name} {what}queue {interrupt.queue} on CPU {cpu}",
            )
        )
    return found


def _xps(snapshot: Snapshot, interface: Interface, cpus: Sequence[int]) -> list[Setting]:
    if len(interface.tx_queues) < max(2, len(cpus)):
        return []
    return [
        Setting(
            Kind.MASK,
            f"{queue}/xps_cpus",
            mask_text([cpus[number % len(cpus)]], snapshot.width),
            f"CPU {cpus[number % len(cpus)]} sends by queue {number}",
        )
        for number, queue in enumerate(interface.tx_queues)
    ]


def _rps(
    snapshot: Snapshot,
    interface: Interface,
    cpus: Sequence[int],
    queues: int,
    notes: list[str],
) -> list[Setting]:
    steered = snapshot.has_receive_flow_deliver and not is_serving(snapshot)
    if queues >= len(cpus):
        chosen: Sequence[int] = ()
        why = "no RPS: there is a queue for each CPU"
    elif steered:
        chosen = ()
        why = "no RPS: Receive Flow Deliver steers what this host asked for"
        notes.append(
            f"{interface.name}: no server but SSH listens, so all its connections are taken for"
            " ones that this host makes, and Receive Flow Deliver steers those"
        )
    else:
        chosen = cpus
        why = f"RPS: {queues} queue{'s' if queues > 1 else ''} for {len(cpus)} CPUs"
    mask = mask_text(chosen, snapshot.width)
    return [Setting(Kind.MASK, f"{queue}/rps_cpus", mask, why) for queue in interface.rx_queues]


def _rfs(snapshot: Snapshot) -> list[Setting]:
    if not snapshot.has_listen_spawn:
        return []
    why = "no RFS: it would take packets away from the core of their listener's clone"
    paths = [
        f"{queue}/rps_flow_cnt"
        for interface in snapshot.interfaces
        if interface.is_up
        for queue in interface.rx_queues
    ]
    paths.append("/proc/sys/net/core/rps_sock_flow_entries")
    return [Setting(Kind.VALUE, path, "0", why) for path in paths if path in snapshot.files]


def _irqbalance(snapshot: Snapshot, settings: Sequence[Setting]) -> list[Setting]:
    names = [setting.target for setting in settings if setting.kind is Kind.INTERRUPT]
    if not snapshot.irqbalance.program or not names:
        return []
    why = "irqbalance goes on with all other interrupts"
    return [Setting(Kind.IRQBALANCE, snapshot.irqbalance.config, " ".join(names), why)]


def _ports(snapshot: Snapshot) -> list[Setting]:
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    words = snapshot.text(path).split()
    if len(words) != 2:
        return []
    low, high = min(int(words[0]), LOWEST_PORT), max(int(words[1]), HIGHEST_PORT)
    found = [Setting(Kind.VALUE, path, f"{low} {high}", "ports for outgoing connections")]
    path = "/proc/sys/net/ipv4/ip_local_reserved_ports"
    if path in snapshot.files:
        text = snapshot.text(path)
        reserved = set(parse_list(text)) if text else set()
        # A server that is restarted must find its port free.
        reserved |= {entry.port for entry in snapshot.listeners if low <= entry.port <= high}
        if reserved:
            why = "ports that servers listen at are not given to outgoing connections"
            # Before the range: in between, a port could be taken.
            found.insert(0, Setting(Kind.VALUE, path, list_text(reserved), why))
    return found


def _limits(snapshot: Snapshot) -> list[Setting]:
    found = []
    for name, least, why in _AT_LEAST:
        path = f"/proc/sys/{name}"
        text = snapshot.text(path)
        if text.isdecimal():
            found.append(Setting(Kind.VALUE, path, str(max(int(text), least)), why))
    return found
