"""Plans for shapes of hosts: which CPU gets which queue, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdeploy.errors import FsdeployError
from fsdeploy.tuning.cpus import parse_mask
from fsdeploy.tuning.plan import Choice, Plan, Spread, parse_choice, plan_tuning
from fsdeploy.tuning.settings import Kind, Outcome, compare
from fsdeploy.tuning.snapshot import Snapshot, snapshot_from
from tests.unit.tuning.host_side import names, snapshot
from tests.unit.tuning.shapes import Card, Shape, document


def cpus_of(plan: Plan, kind: Kind, part: str = "") -> dict[str, list[int]]:
    return {
        setting.target: sorted(parse_mask(setting.value))
        for setting in plan.settings
        if setting.kind is kind and part in setting.target
    }


def values_of(plan: Plan) -> dict[str, str]:
    return {item.target: item.value for item in plan.settings if item.kind is Kind.VALUE}


def with_files(host: Snapshot, files: Mapping[str, str]) -> Snapshot:
    return dataclasses.replace(host, files={**host.files, **files})


def plan(name: str, cpus: str = "all") -> Plan:
    return plan_tuning(snapshot(name), parse_choice(cpus))


@pytest.mark.parametrize("name", names())
def test_every_shape_has_a_plan_that_fits_it(name: str) -> None:
    host = snapshot(name)
    for spread in (Spread.ALL, Spread.LOCAL, Spread.ONE):
        made = plan_tuning(host, Choice(spread))
        for setting in made.settings:
            # Every target is one that this host has.
            assert compare(host, setting).outcome is not Outcome.MISSING, setting
            if setting.kind in (Kind.INTERRUPT, Kind.MASK):
                assert parse_mask(setting.value) <= set(host.online)
        for cpus in cpus_of(made, Kind.INTERRUPT).values():
            assert len(cpus) == 1
        targets = [(setting.kind, setting.target) for setting in made.settings]
        assert len(set(targets)) == len(targets)


@pytest.mark.parametrize("name", names())
def test_a_plan_is_the_same_after_it_was_applied(name: str) -> None:
    """Or a second run would not be one that changes nothing."""
    host = snapshot(name)
    first = plan_tuning(host, Choice())
    numbers = {entry: line.number for line in host.interrupts for entry in line.names}
    files = {}
    for setting in first.settings:
        if setting.kind in (Kind.MASK, Kind.VALUE):
            files[setting.target] = setting.value + "\n"
        elif setting.kind is Kind.INTERRUPT:
            files[f"/proc/irq/{numbers[setting.target]}/smp_affinity"] = setting.value + "\n"
    after = with_files(host, files)
    assert plan_tuning(after, Choice()) == first
    for setting in first.settings:
        if setting.target in files or setting.kind is Kind.INTERRUPT:
            assert compare(after, setting).outcome is Outcome.UNCHANGED


def test_a_queue_for_each_cpu() -> None:
    made = plan("igb-8")
    assert cpus_of(made, Kind.INTERRUPT) == {f"eth0-TxRx-{cpu}": [cpu] for cpu in range(8)}
    queues = "/sys/class/net/eth0/queues"
    assert cpus_of(made, Kind.MASK, "xps") == {
        f"{queues}/tx-{cpu}/xps_cpus": [cpu] for cpu in range(8)
    }
    assert set(map(tuple, cpus_of(made, Kind.MASK, "rps").values())) == {()}
    assert made.notes == ("eth1 is down and left alone",)
    assert not any("eth1" in setting.target for setting in made.settings)


def test_the_cards_own_node_comes_first() -> None:
    everything = [cpus[0] for cpus in cpus_of(plan("ixgbe-16"), Kind.INTERRUPT).values()]
    assert everything == [*range(8, 16), *range(8)]
    local = cpus_of(plan("ixgbe-16", "local"), Kind.INTERRUPT)
    assert [cpus[0] for cpus in local.values()] == [*range(8, 16)] * 2
    remote = cpus_of(plan("ixgbe-16", "remote"), Kind.INTERRUPT)
    assert [cpus[0] for cpus in remote.values()] == [*range(8)] * 2
    one = cpus_of(plan("ixgbe-16", "one"), Kind.INTERRUPT)
    assert [cpus[0] for cpus in one.values()] == [8] * 16
    chosen = cpus_of(plan("ixgbe-16", "3,5-6"), Kind.INTERRUPT)
    assert [cpus[0] for cpus in chosen.values()][:4] == [3, 5, 6, 3]


def test_xps_follows_the_interrupts() -> None:
    made = plan("ixgbe-64")
    interrupts = cpus_of(made, Kind.INTERRUPT)
    sending = cpus_of(made, Kind.MASK, "xps")
    for queue in range(64):
        path = f"/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"
        assert sending[path] == interrupts[f"eth0-TxRx-{queue}"]
    # One queue for every CPU, and one CPU for every queue.
    assert sorted(cpus[0] for cpus in sending.values()) == list(range(64))
    # The node's cores, then their second threads, then the other node.
    order = [interrupts[f"eth0-TxRx-{queue}"][0] for queue in range(64)]
    assert order[:32] == [*range(16), *range(32, 48)]


def test_more_queues_than_cpus() -> None:
    sending = cpus_of(plan("ixgbe-64", "local"), Kind.MASK, "xps")
    assert len(sending) == 64
    assert {cpu for cpus in sending.values() for cpu in cpus} == {*range(16), *range(32, 48)}


def test_fewer_queues_than_cpus() -> None:
    made = plan("bnx2-8")
    near, far = list(range(0, 16, 2)), list(range(1, 16, 2))
    interrupts = cpus_of(made, Kind.INTERRUPT)
    assert [interrupts[f"em1-{queue}"] for queue in range(8)] == [[cpu] for cpu in near]
    # The second card of the node goes on where the first has ended.
    assert [interrupts[f"em2-{queue}"] for queue in range(8)] == [[cpu] for cpu in far]
    assert cpus_of(made, Kind.MASK, "xps") == {}
    assert set(map(tuple, cpus_of(made, Kind.MASK, "rps").values())) == {tuple(range(16))}


def test_tg3_receives_by_all_but_the_first() -> None:
    interrupts = cpus_of(plan("tg3-6"), Kind.INTERRUPT)
    assert interrupts == {"em1-0": [0], "em1-1": [0], "em1-2": [1], "em1-3": [2], "em1-4": [3]}
    assert cpus_of(plan("tg3-6"), Kind.MASK, "xps") == {}


def test_a_single_queue() -> None:
    made = plan("e1000-2")
    assert cpus_of(made, Kind.INTERRUPT) == {"eth0": [0]}
    assert cpus_of(made, Kind.MASK) == {"/sys/class/net/eth0/queues/rx-0/rps_cpus": [0, 1]}
    alone = plan("e1000-2", "1")
    assert cpus_of(alone, Kind.INTERRUPT) == {"eth0": [1]}
    assert cpus_of(alone, Kind.MASK) == {"/sys/class/net/eth0/queues/rx-0/rps_cpus": []}


def test_a_captured_host_with_virtio_cards() -> None:
    made = plan("virtio-1-and-2")
    assert cpus_of(made, Kind.INTERRUPT) == {
        "virtio3-input.0": [0],
        "virtio3-output.0": [0],
        # The first card has CPU 0 already.
        "virtio4-input.0": [1],
        "virtio4-output.0": [1],
        "virtio4-input.1": [0],
        "virtio4-output.1": [0],
    }
    queues = "/sys/class/net/eth1/queues"
    assert cpus_of(made, Kind.MASK, "xps") == {
        f"{queues}/tx-0/xps_cpus": [1],
        f"{queues}/tx-1/xps_cpus": [0],
    }
    assert cpus_of(made, Kind.MASK, "rps") == {
        "/sys/class/net/eth0/queues/rx-0/rps_cpus": [0, 1],
        f"{queues}/rx-0/rps_cpus": [],
        f"{queues}/rx-1/rps_cpus": [],
    }


RPS = "/sys/class/net/eth4/queues/rx-0/rps_cpus"


def test_no_rps_where_receive_flow_deliver_steers_it_all() -> None:
    host = snapshot("be2net-33")
    made = plan_tuning(host, Choice())
    assert cpus_of(made, Kind.MASK)[RPS] == []
    assert any("Receive Flow Deliver" in note for note in made.notes)
    # Off, it steers nothing.
    switch = "/sys/module/rfd/parameters/enable_receive_flow_deliver"
    off = plan_tuning(with_files(host, {switch: "N\n"}), Choice())
    assert cpus_of(off, Kind.MASK)[RPS] == list(range(33))
    # It steers nothing that others began: a server needs RPS beside it.
    serving = with_files(host, {"/proc/net/tcp": "head\n 0: 00000000:0050 0:0 0A 0\n"})
    assert cpus_of(plan_tuning(serving, Choice()), Kind.MASK)[RPS] == list(range(33))


def test_rfs_is_off_with_listen_spawn_only() -> None:
    flows = "/sys/class/net/eth2/queues/rx-15/rps_flow_cnt"
    entries = "/proc/sys/net/core/rps_sock_flow_entries"
    values = values_of(plan("ixgbe-16"))
    assert values[flows] == values[entries] == "0"
    host = snapshot("ixgbe-16")
    switch = "/sys/module/fastsocket/parameters/enable_listen_spawn"
    stock = values_of(plan_tuning(with_files(host, {switch: "0\n"}), Choice()))
    assert flows not in stock
    assert entries not in stock


def test_irqbalance_is_told_where_it_is() -> None:
    (setting,) = [item for item in plan("igb-8").settings if item.kind is Kind.IRQBALANCE]
    assert setting.target == "/etc/sysconfig/irqbalance"
    assert setting.value.split() == [f"eth0-TxRx-{queue}" for queue in range(8)]
    assert not any(item.kind is Kind.IRQBALANCE for item in plan("ixgbe-16").settings)


def test_ports_and_limits() -> None:
    values = values_of(plan("igb-8"))
    assert values["/proc/sys/net/ipv4/ip_local_port_range"] == "10240 65535"
    # 11211 is a server's; 22, 80 and 443 are below the range.
    assert values["/proc/sys/net/ipv4/ip_local_reserved_ports"] == "11211"
    assert values["/proc/sys/net/core/somaxconn"] == "16384"
    # One that was in the range before is in it as well.
    high = with_files(snapshot("igb-8"), {"/proc/net/tcp6": "head\n 0: 00000000:9C40 0:0 0A 0\n"})
    values = values_of(plan_tuning(high, Choice()))
    assert values["/proc/sys/net/ipv4/ip_local_reserved_ports"] == "11211,40000"
    wider = with_files(
        snapshot("igb-8"),
        {
            "/proc/sys/net/ipv4/ip_local_port_range": "1024\t65535\n",
            "/proc/sys/net/ipv4/ip_local_reserved_ports": "20000-20010\n",
            "/proc/sys/net/core/somaxconn": "65535\n",
        },
    )
    values = values_of(plan_tuning(wider, Choice()))
    assert values["/proc/sys/net/ipv4/ip_local_port_range"] == "1024 65535"
    assert values["/proc/sys/net/ipv4/ip_local_reserved_ports"] == "11211,20000-20010"
    assert values["/proc/sys/net/core/somaxconn"] == "65535"


def test_coalescing_is_asked_of_every_card() -> None:
    cards = {
        item.target: item.value for item in plan("igb-8").settings if item.kind is Kind.COALESCE
    }
    assert cards == {"eth0": "adaptive-rx=0 rx-usecs=333"}


def test_a_choice_that_does_not_fit() -> None:
    with pytest.raises(FsdeployError, match="CPU 99 does not run"):
        plan("igb-8", "0,99")
    with pytest.raises(FsdeployError, match="no CPUs of another NUMA node"):
        plan("igb-8", "remote")
    with pytest.raises(FsdeployError, match=r"--cpus some: all, local"):
        parse_choice("some")


def test_a_card_whose_interrupts_have_unknown_names() -> None:
    shape = Shape(4, [Card("eth0", "odd", "0000:01:00.0", ["odd_nic:0"], 4, 4)])
    made = plan_tuning(snapshot_from(document(shape), "shape"), Choice())
    assert made.notes == ("eth0 (odd): no interrupt of its queues found",)
    assert cpus_of(made, Kind.INTERRUPT) == {}


# A shape of 255 CPUs takes a while to write.
@settings(deadline=None, max_examples=40)
@given(
    cpus=st.integers(1, 255),
    queues=st.integers(1, 70),
    node=st.sampled_from([None, 0, 1]),
    split=st.integers(1, 254),
)
def test_any_number_of_cpus_and_queues(
    cpus: int, queues: int, node: int | None, split: int
) -> None:
    nodes = (range(min(split, cpus)), range(min(split, cpus), cpus))
    names_of_queues = [f"eth0-TxRx-{queue}" for queue in range(queues)]
    shape = Shape(
        cpus,
        [Card("eth0", "ixgbe", "0000:01:00.0", names_of_queues, queues, queues, node=node)],
        nodes=nodes,
    )
    made = plan_tuning(snapshot_from(document(shape), "shape"), Choice())
    used = [cpus[0] for cpus in cpus_of(made, Kind.INTERRUPT).values()]
    # No CPU has two queues while another has none.
    counts = [used.count(cpu) for cpu in range(cpus)]
    assert max(counts) - min(counts) <= 1
    if node is not None and nodes[node] and queues <= len(nodes[node]):
        assert set(used) <= set(nodes[node])
    assert bool(cpus_of(made, Kind.MASK, "xps")) == (queues >= max(2, cpus))
    spread = set(map(tuple, cpus_of(made, Kind.MASK, "rps").values()))
    assert spread == {() if queues >= cpus else tuple(range(cpus))}
