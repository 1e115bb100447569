"""What a snapshot's texts mean."""

from __future__ import annotations

import json

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.tuning.snapshot import (
    Interrupt,
    Listener,
    Role,
    load_snapshot,
    parse_interrupts,
    parse_listeners,
    queue_interrupts,
)
from tests.unit.tuning import shapes
from tests.unit.tuning.host_side import Machine, document, host_side, names, snapshot

# Lines as kernels print them: 2.6.32, 6.1 with a column for the hardware's number, a shared line.
INTERRUPTS = """\
           CPU0       CPU1
  0:         42          0   IO-APIC-edge      timer
 11:          3          0   IO-APIC-fasteoi   eth1, uhci_hcd:usb1
 26:       1014          7   PCI-MSI-edge      eth0-TxRx-0
 27:          0          1  PCI-MSI 512001-edge      virtio1-input.0
 28:          5          5   PCI-MSI 49152-edge
NMI:          0          0   Non-maskable interrupts
"""


def test_lines_of_interrupts() -> None:
    found = parse_interrupts(INTERRUPTS)
    assert [(line.number, line.names) for line in found[:4]] == [
        (0, ("timer",)),
        (11, ("eth1", "uhci_hcd:usb1")),
        (26, ("eth0-TxRx-0",)),
        (27, ("virtio1-input.0",)),
    ]


@pytest.mark.parametrize("name", names())
def test_the_host_reads_the_same_lines(name: str) -> None:
    text = document(name)["files"]["/proc/interrupts"]
    ours = [(line.number, list(line.names)) for line in parse_interrupts(text)]
    assert host_side.interrupt_names(text) == ours
    assert host_side.interrupt_names(INTERRUPTS) == [
        (line.number, list(line.names)) for line in parse_interrupts(INTERRUPTS)
    ]


def roles(driver: str, interface: str, device: str, *lines: str) -> list[tuple[str, str, int]]:
    interrupts = tuple(Interrupt(number, (name,)) for number, name in enumerate(lines, 30))
    found = queue_interrupts(interrupts, interface, device, driver)
    return [(entry.name, str(entry.role), entry.queue) for entry in found]


def test_names_that_drivers_give() -> None:
    assert roles("igb", "eth0", "d", "eth0", "eth0-TxRx-0", "eth0-TxRx-1", "eth0-TxRx-10") == [
        ("eth0-TxRx-0", "both", 0),
        ("eth0-TxRx-1", "both", 1),
        ("eth0-TxRx-10", "both", 2),
    ]
    assert roles(
        "virtio_net",
        "eth0",
        "virtio0",
        "virtio0-config",
        "virtio0-input.0",
        "virtio0-output.0",
        "virtio1-input.0",
    ) == [
        ("virtio0-input.0", "rx", 0),
        ("virtio0-output.0", "tx", 0),
    ]
    # 2.6.32's virtio with one queue, and with all its queues on one vector.
    assert roles("virtio_net", "eth0", "virtio0", "virtio0-input", "virtio0-output") == [
        ("virtio0-input", "rx", 0),
        ("virtio0-output", "tx", 0),
    ]
    assert roles("virtio_net", "eth0", "virtio0", "virtio0-config", "virtio0-virtqueues") == [
        ("virtio0-virtqueues", "both", 0)
    ]
    assert roles("tg3", "em1", "d", "em1-0", "em1-1", "em1-2") == [
        ("em1-1", "rx", 0),
        ("em1-2", "rx", 1),
        ("em1-0", "tx", 0),
    ]
    # Newer tg3, which says it.
    assert roles("tg3", "em1", "d", "em1-tx-0", "em1-rx-1", "em1-rx-2") == [
        ("em1-rx-1", "rx", 0),
        ("em1-rx-2", "rx", 1),
        ("em1-tx-0", "tx", 0),
    ]
    assert roles("tg3", "em1", "d", "em1") == [("em1", "both", 0)]
    assert roles("e1000e", "eth0", "d", "eth0-rx-0", "eth0-tx-0", "eth0") == [
        ("eth0-rx-0", "rx", 0),
        ("eth0-tx-0", "tx", 0),
    ]
    assert roles("bnx2x", "eth0", "d", "eth0", "eth0-fp-0", "eth0-fp-1") == [
        ("eth0-fp-0", "both", 0),
        ("eth0-fp-1", "both", 1),
    ]
    assert roles("i40e", "p1p1", "d", "i40e-p1p1-TxRx-0", "i40e-0000:05:00.0:misc") == [
        ("i40e-p1p1-TxRx-0", "both", 0)
    ]
    assert roles(
        "mlx5_core",
        "eth0",
        "0000:05:00.0",
        "mlx5_comp0@pci:0000:05:00.0",
        "mlx5_comp1@pci:0000:05:00.0",
        "mlx5_comp0@pci:0000:06:00.0",
        "mlx5_async0@pci:0000:05:00.0",
    ) == [
        ("mlx5_comp0@pci:0000:05:00.0", "both", 0),
        ("mlx5_comp1@pci:0000:05:00.0", "both", 1),
    ]


def test_another_card_of_a_longer_name() -> None:
    assert roles("igb", "eth1", "d", "eth10-TxRx-0", "eth10", "eth1-TxRx-0", "eth1:lsc") == [
        ("eth1-TxRx-0", "both", 0)
    ]


def test_listening_sockets() -> None:
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:2BCB 00000000:0000 0A 0\n"
        "   1: 00000000:0050 00000000:0000 0A 0\n"
        "   2: 0F02000A:0016 0202000A:A6F4 01 0\n"
    )
    assert parse_listeners(text) == (Listener(11211, True), Listener(80, False))
    six = "head\n" + "".join(
        f"  {number}: {address}:0050 {'0' * 32}:0000 0A 0\n"
        for number, address in enumerate(
            ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F", "0" * 32)
        )
    )
    assert [entry.is_loopback for entry in parse_listeners(six)] == [True, True, False]
    assert host_side.listening(text).count(" 0A ") == 2
    assert " 01 " not in host_side.listening(text)


def test_what_the_shapes_are() -> None:
    two = snapshot("two-nodes-24")
    assert two.width == 32
    assert len(two.online) == 24
    assert two.nodes[1] == (6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23)
    assert two.siblings(13) == (1, 13)
    assert [card.node for card in two.interfaces] == [0, 1]
    assert two.has_listen_spawn
    assert two.has_receive_flow_deliver
    tg3 = snapshot("tg3-6").interfaces[0]
    assert [entry.role for entry in tg3.interrupts].count(Role.RX) == 4
    assert not snapshot("igb-8").has_receive_flow_deliver


def test_the_written_snapshots_are_what_the_writer_writes() -> None:
    for path, text in shapes.texts():
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.parametrize("name", names())
def test_collecting_a_shape_gives_the_shape(tmp_path: object, name: str) -> None:
    from pathlib import Path

    wanted = document(name)
    machine = Machine(Path(str(tmp_path)), wanted)
    assert host_side.collect(machine.host) == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, 1 was expected"),
        ({"files": 3}, "not a snapshot"),
        ({"files": {}}, "not a snapshot"),
        ({"irqbalance": {}}, "not a snapshot"),
    ],
)
def test_what_is_no_snapshot(change: dict[str, object], message: str) -> None:
    text = json.dumps({**document("igb-8"), **change})
    with pytest.raises(FsdeployError, match=message):
        load_snapshot(text, "file")
    with pytest.raises(FsdeployError, match="not JSON"):
        load_snapshot("{", "file")
    with pytest.raises(FsdeployError, match="not a snapshot"):
        load_snapshot("[]", "file")
