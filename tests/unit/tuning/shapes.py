"""Writes the snapshots of machines that the lab has not: the shapes that drivers give a host.

The names of interrupts are those that the drivers of 2.6.32-431 make (each shape says where), the
form of /proc/interrupts is that kernel's. Run this file to write the snapshots anew.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "snapshots"

_RATES = ("usecs", "frames")
COALESCE_FIELDS = (
    *(f"{way}-{rate}{tail}" for way in ("rx", "tx") for tail in ("", "-irq") for rate in _RATES),
    *("stats-block-usecs", "adaptive-rx", "adaptive-tx", "sample-interval"),
    *("pkt-rate-low", "pkt-rate-high"),
    *(f"{way}-{rate}-{at}" for at in ("low", "high") for way in ("rx", "tx") for rate in _RATES),
)


@dataclass(frozen=True)
class Card:
    """`interrupts` are the names in /proc/interrupts, in the order of their numbers."""

    name: str
    driver: str
    device: str
    interrupts: Sequence[str]
    rx: int
    tx: int
    node: int | None = None
    coalesce: dict[str, int] = field(default_factory=dict)
    error: int = 0
    is_up: bool = True
    chip: str = "PCI-MSI"
    flow: str = "edge"
    has_xps: bool = True


@dataclass(frozen=True)
class Shape:
    """A machine. `nodes` are the CPUs of each NUMA node, `threads` of a core."""

    cpus: int
    cards: Sequence[Card]
    nodes: Sequence[Sequence[int]] = ()
    threads: int = 1
    possible: int = 0
    listening: Sequence[tuple[str, int]] = (("00000000", 22),)
    irqbalance: Sequence[str] = ()
    modules: dict[str, str] = field(default_factory=dict)


def kernel_mask(cpus: Sequence[int], width: int) -> str:
    """As the kernel prints it, by strings: the tests compare it with the code that shifts."""
    bits = "".join("1" if cpu in cpus else "0" for cpu in reversed(range(width)))
    groups: list[str] = []
    while bits:
        bits, group = bits[:-32], bits[-32:]
        groups.insert(0, format(int(group, 2), "x").zfill(-(-len(group) // 4)))
    return ",".join(groups)


def interrupt_line(number: int, cpus: int, chip: str, flow: str, names: str) -> str:
    """A line as show_interrupts() of 2.6.32 prints it."""
    counts = "".join(f"{(number * 7919 + cpu * 131) % 100000:10d} " for cpu in range(cpus))
    return f"{number:>4}: {counts} {chip:>8}-{flow:<8}  {names}\n"


def _listening(sockets: Sequence[tuple[str, int]]) -> str:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    return head + "".join(
        f"{number:4d}: {address}:{port:04X} {'0' * len(address)}:0000 0A 00000000:00000000\n"
        for number, (address, port) in enumerate(sockets)
    )


def document(shape: Shape) -> dict[str, Any]:
    """The snapshot of a shape."""
    width = shape.possible or shape.cpus
    everything = list(range(shape.cpus))
    files = {
        "/proc/sys/kernel/osrelease": "2.6.32-431.el6.x86_64\n",
        "/proc/sys/fs/file-max": "1616486\n",
        "/proc/sys/net/core/netdev_max_backlog": "1000\n",
        "/proc/sys/net/core/rps_sock_flow_entries": "0\n",
        "/proc/sys/net/core/somaxconn": "128\n",
        "/proc/sys/net/ipv4/ip_local_port_range": "32768\t61000\n",
        "/proc/sys/net/ipv4/ip_local_reserved_ports": "\n",
        "/proc/sys/net/ipv4/tcp_max_syn_backlog": "2048\n",
        "/sys/devices/system/cpu/online": f"0-{shape.cpus - 1}\n",
        "/sys/devices/system/cpu/possible": f"0-{width - 1}\n",
        "/proc/net/tcp": _listening([item for item in shape.listening if len(item[0]) == 8]),
        "/proc/net/tcp6": _listening([item for item in shape.listening if len(item[0]) == 32]),
    }
    files |= {f"/sys/module/{name}": f"{value}\n" for name, value in shape.modules.items()}
    # The second threads come after all cores, as firmware numbers them.
    cores = shape.cpus // shape.threads
    for cpu in everything:
        threads = [cpu % cores + cores * thread for thread in range(shape.threads)]
        path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        files[path] = ",".join(str(thread) for thread in threads) + "\n"
    for node, cpus in enumerate(shape.nodes):
        files[f"/sys/devices/system/node/node{node}/cpulist"] = _ranges(cpus) + "\n"
    links: dict[str, str] = {}
    ethtool: dict[str, dict[str, int]] = {}
    heads = "".join(f"CPU{cpu:<8d}" for cpu in everything)
    lines = [f"{'':10}{heads}\n", interrupt_line(0, shape.cpus, "IO-APIC", "edge", "timer")]
    number = 16 if any(card.chip != "PCI-MSI" for card in shape.cards) else 64
    for card in shape.cards:
        base = f"/sys/class/net/{card.name}"
        links[f"{base}/device"] = card.device
        links[f"{base}/device/driver"] = card.driver
        files[f"{base}/flags"] = "0x1003\n" if card.is_up else "0x1002\n"
        if card.node is not None:
            files[f"{base}/device/numa_node"] = f"{card.node}\n"
        for queue in range(card.rx):
            files[f"{base}/queues/rx-{queue}/rps_cpus"] = kernel_mask([], width) + "\n"
            files[f"{base}/queues/rx-{queue}/rps_flow_cnt"] = "0\n"
        for queue in range(card.tx if card.has_xps else 0):
            files[f"{base}/queues/tx-{queue}/xps_cpus"] = kernel_mask([], width) + "\n"
        ethtool[card.name] = (
            {"error": card.error}
            if card.error
            else {**dict.fromkeys(COALESCE_FIELDS, 0), **card.coalesce}
        )
        for names in card.interrupts:
            lines.append(interrupt_line(number, shape.cpus, card.chip, card.flow, names))
            files[f"/proc/irq/{number}/smp_affinity"] = kernel_mask(everything, width) + "\n"
            number += 1
    lines.append(f" NMI: {'0 ' * shape.cpus}  Non-maskable interrupts\n")
    files["/proc/interrupts"] = "".join(lines)
    files["/proc/irq/0/smp_affinity"] = kernel_mask(everything, width) + "\n"
    return {
        "format": 1,
        "files": files,
        "links": links,
        "ethtool": ethtool,
        "irqbalance": {
            "program": "/usr/sbin/irqbalance" if shape.irqbalance else "",
            "config": "/etc/sysconfig/irqbalance" if shape.irqbalance else "",
            "arguments": list(shape.irqbalance),
        },
    }


def _ranges(cpus: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _names(form: str, count: int, first: int = 0) -> list[str]:
    return [form.format(number) for number in range(first, first + count)]


WEB = (("00000000", 22), ("00000000", 80), ("0100007F", 11211), ("0" * 32, 443))
FASTSOCKET = {
    "fastsocket/parameters/enable_listen_spawn": "2",
    "fastsocket/parameters/enable_receive_flow_deliver": "1",
}
TWO_NODES_24 = ((*range(6), *range(12, 18)), (*range(6, 12), *range(18, 24)))

SHAPES = {
    # drivers/net/e1000/e1000_main.c: request_irq(..., netdev->name); the line is shared.
    "e1000-2": Shape(
        2,
        [
            Card(
                "eth0",
                "e1000",
                "0000:00:03.0",
                ["eth0, uhci_hcd:usb1"],
                1,
                1,
                chip="IO-APIC",
                flow="fasteoi",
                error=errno.EOPNOTSUPP,
            )
        ],
    ),
    # drivers/net/igb/igb_main.c, igb_request_msix: %s-TxRx-%u, and the name alone for the link.
    "igb-8": Shape(
        8,
        [
            Card(
                "eth0",
                "igb",
                "0000:02:00.0",
                ["eth0", *_names("eth0-TxRx-{}", 8)],
                8,
                8,
                coalesce={"rx-usecs": 3},
            ),
            Card("eth1", "igb", "0000:02:00.1", [], 8, 8, is_up=False),
        ],
        listening=WEB,
        irqbalance=["irqbalance", "--pid=/var/run/irqbalance.pid"],
    ),
    # drivers/net/ixgbe/ixgbe_main.c, ixgbe_request_msix_irqs: %s-TxRx-%d, then the link's.
    "ixgbe-16": Shape(
        16,
        [
            Card(
                "eth2",
                "ixgbe",
                "0000:84:00.0",
                [*_names("eth2-TxRx-{}", 16), "eth2"],
                16,
                16,
                node=1,
                coalesce={"rx-usecs": 1},
            )
        ],
        nodes=(range(8), range(8, 16)),
        listening=WEB,
        modules=FASTSOCKET,
    ),
    "ixgbe-64": Shape(
        64,
        [
            Card(
                "eth0",
                "ixgbe",
                "0000:04:00.0",
                [*_names("eth0-TxRx-{}", 64), "eth0"],
                64,
                64,
                node=0,
                coalesce={"rx-usecs": 1, "adaptive-rx": 1},
            )
        ],
        nodes=((*range(16), *range(32, 48)), (*range(16, 32), *range(48, 64))),
        threads=2,
        listening=WEB,
    ),
    # drivers/net/bnx2.c, bnx2_enable_msix: %s-%d from 0, each for both directions.
    "bnx2-8": Shape(
        16,
        [
            Card(
                name,
                "bnx2",
                device,
                _names(name + "-{}", 8),
                8,
                8,
                node=0,
                coalesce={"rx-usecs": 18, "rx-frames": 6, "tx-usecs": 80, "tx-frames": 20},
            )
            for name, device in (("em1", "0000:01:00.0"), ("em2", "0000:01:00.1"))
        ],
        nodes=(range(0, 16, 2), range(1, 16, 2)),
        listening=WEB,
    ),
    # drivers/net/tg3.c, tg3_request_irq: %s-%d from 0; the first has the link and what was sent.
    "tg3-6": Shape(
        6,
        [
            Card(
                "em1",
                "tg3",
                "0000:02:00.0",
                _names("em1-{}", 5),
                4,
                1,
                coalesce={"rx-usecs": 20, "rx-frames": 5, "tx-usecs": 72, "tx-frames": 53},
            )
        ],
        possible=8,
        listening=WEB,
    ),
    # Two sockets with a card on each, irqbalance at work.
    "two-nodes-24": Shape(
        24,
        [
            Card(
                name,
                "igb",
                device,
                [name, *_names(name + "-TxRx-{}", 8)],
                8,
                8,
                node=node,
                coalesce={"rx-usecs": 3},
            )
            for name, device, node in (("eth0", "0000:02:00.0", 0), ("eth1", "0000:82:00.0", 1))
        ],
        nodes=TWO_NODES_24,
        threads=2,
        possible=32,
        listening=WEB,
        irqbalance=["irqbalance", "--pid=/var/run/irqbalance.pid", "--banirq=9"],
        modules=FASTSOCKET,
    ),
    # A proxy without a server of its own, on a kernel that steers what it asked for. Without XPS.
    "be2net-33": Shape(
        33,
        [
            Card(
                "eth4",
                "be2net",
                "0000:05:00.0",
                _names("eth4-q{}", 5),
                5,
                1,
                error=errno.EOPNOTSUPP,
                has_xps=False,
            )
        ],
        modules={"rfd/parameters/enable_receive_flow_deliver": "Y"},
    ),
}


def texts() -> Iterator[tuple[Path, str]]:
    """Each snapshot's file and its text."""
    for name, shape in SHAPES.items():
        text = json.dumps(document(shape), indent=1, sort_keys=True) + "\n"
        yield FOLDER / f"{name}.json", text


if __name__ == "__main__":
    for path, text in texts():
        path.write_text(text, encoding="utf-8")
