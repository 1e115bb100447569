"""The shipped checks of tuning, on hosts in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.verify import check_tuning
from fsdeploy.verify.report import Expectation
from tests.unit.tuning.host_side import Machine, document, host_side
from tests.unit.tuning.test_host_side import plan_of

# As ethtool 3.5 of CentOS 6 and ethtool 6 print it.
OLD_ETHTOOL = """\
Coalesce parameters for eth0:
Adaptive RX: off  TX: off
stats-block-usecs: 0
rx-usecs: 333
rx-frames: 0
"""
NEW_ETHTOOL = """\
Coalesce parameters for eth0:
Adaptive RX: n/a  TX: n/a
stats-block-usecs:	n/a

rx-usecs:	333
rx-frames:	n/a
"""


@dataclass
class Answer:
    rc: int
    stdout: str


@dataclass
class FakeFile:
    exists: bool


class FakeMachine:
    """What the checks see of testinfra, on a folder."""

    def __init__(self, host: Machine) -> None:
        self.host = host
        self.ethtool = Answer(0, OLD_ETHTOOL)

    def run(self, command: str, *_words: str) -> Answer:
        if "ethtool" in command:
            return self.ethtool
        if "pidof" in command:
            path = self.host.path("/proc/99/cmdline")
            return (
                Answer(0, path.read_text().replace("\0", " ")) if path.exists() else Answer(1, "")
            )
        root = self.host.root
        text = command.replace(" /proc/", f" {root}/proc/").replace(" /sys/", f" {root}/sys/")
        ended = run.run(["sh", "-c", text])
        return Answer(ended.returncode, ended.output.replace(str(root), ""))

    def file(self, path: str) -> FakeFile:
        return FakeFile(self.host.path(path).exists())


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    host = Machine(tmp_path / "root", document("igb-8"))
    host.on_command = host.restart_irqbalance
    host_side.apply_settings(host.host, plan_of("igb-8"))
    return FakeMachine(host)


EXPECTED = Expectation(tuning=tuple(plan_of("igb-8")))
CHECKS = [getattr(check_tuning, name) for name in dir(check_tuning) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS)
def test_a_tuned_host_passes(
    machine: FakeMachine, check: Callable[[FakeMachine, Expectation], None]
) -> None:
    check(machine, EXPECTED)
    with pytest.raises(pytest.skip.Exception):
        check(machine, Expectation())


@pytest.mark.parametrize(
    ("check", "path", "text", "message"),
    [
        ("interrupts", "/proc/irq/67/smp_affinity", "ff\n", "eth0-TxRx-2 is ff, expected is 04"),
        ("receiving", "/sys/class/net/eth0/queues/rx-3/rps_cpus", "01\n", "rps_cpus is 01, exp"),
        ("sending", "/sys/class/net/eth0/queues/tx-3/xps_cpus", "00\n", "xps_cpus is 00, exp"),
        ("values", "/proc/sys/net/core/somaxconn", "128\n", "somaxconn is 128, expected is 16384"),
        ("irqbalance", "/proc/99/cmdline", "irqbalance\0--banirq=65\0", "may move eth0-TxRx-1"),
    ],
)
def test_what_is_otherwise_is_told(
    machine: FakeMachine, check: str, path: str, text: str, message: str
) -> None:
    machine.host.put(path, text)
    with pytest.raises(AssertionError, match=message):
        getattr(check_tuning, f"check_tuned_{check}")(machine, EXPECTED)


def test_how_many_more(machine: FakeMachine) -> None:
    for queue in range(3):
        machine.host.path(f"/sys/class/net/eth0/queues/tx-{queue}/xps_cpus").unlink()
    with pytest.raises(AssertionError, match=r"tx-0/xps_cpus is not there \(and 2 more\)"):
        check_tuning.check_tuned_sending(machine, EXPECTED)


def test_coalescing_of_old_and_new_ethtool(machine: FakeMachine) -> None:
    machine.ethtool = Answer(0, NEW_ETHTOOL)
    check_tuning.check_tuned_coalescing(machine, EXPECTED)
    machine.ethtool = Answer(0, NEW_ETHTOOL.replace("333", "n/a"))
    with pytest.raises(AssertionError, match="rx-usecs of eth0 is 0, expected is 333"):
        check_tuning.check_tuned_coalescing(machine, EXPECTED)
    machine.ethtool = Answer(0, OLD_ETHTOOL.replace("RX: off", "RX: on"))
    with pytest.raises(AssertionError, match="adaptive-rx of eth0 is 1, expected is 0"):
        check_tuning.check_tuned_coalescing(machine, EXPECTED)
    machine.ethtool = Answer(127, "")
    with pytest.raises(pytest.skip.Exception):
        check_tuning.check_tuned_coalescing(machine, EXPECTED)


def test_what_keeps_it_is_gone(machine: FakeMachine) -> None:
    machine.host.path("/etc/init.d/fsdeploy-tuning").unlink()
    with pytest.raises(AssertionError, match=r"init\.d/fsdeploy-tuning is missing"):
        check_tuning.check_tuning_is_kept(machine, EXPECTED)
