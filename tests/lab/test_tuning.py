# SPDX-License-Identifier: GPL-2.0-only
"""Tuning of a lab host that has a card with several queues: applied, kept, and undone exactly."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import tuning
from fsdeploy.fleet.rollback import RollbackRequest
from fsdeploy.fleet.untune import rollback_tuning
from fsdeploy.fleet.verify import VerifyRequest, verify_hosts
from fsdeploy.kernel import build
from fsdeploy.lab import image, machine, qemu, state
from fsdeploy.tuning.cpus import parse_mask
from fsdeploy.tuning.plan import parse_choice
from fsdeploy.tuning.settings import Outcome
from fsdeploy.verify.report import Outcome as Checked

pytestmark = [pytest.mark.lab, pytest.mark.build]

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
TAP = "fsdtap0"
HERE, THERE = "10.98.76.1", "10.98.76.2"
QUEUES = 2
FLOWS = 64

# Everything that tuning may touch, and that nothing else changes: files with mode and content.
FILES = (
    "find /etc /sbin/ifup-local /usr/sbin /usr/libexec /var/lib/fsdeploy"
    r" \( -type f -o -type l \) -printf '%p %m %l ' \( -type f -exec md5sum {} ';' -o -print \)"
    " 2>/dev/null | grep -v -e /etc/mtab -e /etc/adjtime | sort"
)


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """A network of this thread and its children, with a tap device of several queues in it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        run.run(["ip", "link", "set", "lo", "up"])
        run.run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap", "multi_queue"])
        run.run(["ip", "address", "add", f"{HERE}/24", "dev", TAP])
        run.run(["ip", "link", "set", TAP, "up"])
        yield
    finally:
        _LIBC.setns(before, _CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def lab(
    lab_home: Path, stock_lts61: build.Build, monkeypatch: pytest.MonkeyPatch
) -> Iterator[machine.Lab]:
    """A host with a second card of two queues, its CPUs at work at the same time."""
    assert lab_home.is_dir()
    real = machine.machine_of

    def with_queues(record: state.HostRecord) -> qemu.Machine:
        made = real(record)
        card = qemu.TapNetwork("52:54:00:f6:00:01", TAP, queues=QUEUES)
        return dataclasses.replace(made, networks=(*made.networks, card))

    # Built before, where there is a network to build from.
    package = image.read_kernel_package(stock_lts61.kernel_rpm)
    image.ensure(image.ImageRequest(kernels=(package,)))
    monkeypatch.setattr(machine, "machine_of", with_queues)
    with own_network(), machine.lab([stock_lts61.kernel_rpm]) as up:
        up.command(
            f"printf 'DEVICE=eth1\\nONBOOT=yes\\nIPADDR={THERE}\\nPREFIX=24\\n'"
            " >/etc/sysconfig/network-scripts/ifcfg-eth1; ifup eth1"
        )
        yield up


def interrupts(lab: machine.Lab) -> dict[str, tuple[int, list[int]]]:
    """Number and counts of each interrupt, by name."""
    found = {}
    for line in lab.command("cat /proc/interrupts").splitlines()[1:]:
        words = line.replace(":", " ").split()
        if words[0].isdecimal():
            found[words[-1]] = (int(words[0]), [int(word) for word in words[1:3]])
    return found


def card_of(lab: machine.Lab) -> str:
    """What eth1's interrupts begin with."""
    return Path(lab.command("readlink /sys/class/net/eth1/device")).name


def cpus_of(lab: machine.Lab, name: str) -> set[int]:
    number, _ = interrupts(lab)[name]
    return set(parse_mask(lab.command(f"cat /proc/irq/{number}/smp_affinity")))


def came_when_received(lab: machine.Lab, names: list[str]) -> dict[str, list[int]]:
    """How often each interrupt came on each CPU while packets of many flows arrived.

    Until each has come: which flow goes to which queue is the tap's choice.
    """
    before = interrupts(lab)
    deadline = time.monotonic() + qemu.scaled(60)
    while True:
        for port in range(40000, 40000 + FLOWS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
                flow.bind((HERE, 0))
                flow.sendto(b"x", (THERE, port))
        now = interrupts(lab)
        came = {
            name: [b - a for a, b in zip(before[name][1], now[name][1], strict=True)]
            for name in names
        }
        if all(sum(counts) for counts in came.values()):
            return came
        assert time.monotonic() < deadline, came


def receive(lab: machine.Lab, names: list[str]) -> list[list[int]]:
    """The same for interrupts that were moved: each moves when it comes the next time."""
    came_when_received(lab, names)
    return list(came_when_received(lab, names).values())


def reboot(lab: machine.Lab) -> None:
    look = "cat /proc/sys/kernel/random/boot_id"
    before = lab.command(look)
    lab.command("reboot")
    deadline = time.monotonic() + qemu.scaled(180)
    while time.monotonic() < deadline:
        with contextlib.suppress(FsdeployError):
            if lab.command(look) != before:
                return
        time.sleep(0.5)
    pytest.fail(f"no other boot came:\n{qemu.last_lines(lab.hosts[0].serial, 20)}")


def apply(lab: machine.Lab, cpus: str) -> tuning.TuneOutcome:
    report = tuning.apply(tuning.TuneRequest(lab.inventory, parse_choice(cpus)))
    (host,) = report.hosts
    assert report.exit_code is ExitCode.OK, host.reason
    return host


def test_tuning_is_applied_kept_and_undone(lab: machine.Lab) -> None:
    names = [f"{card_of(lab)}-input.{queue}" for queue in range(QUEUES)]
    files = lab.command(FILES)
    first = {name: cpus_of(lab, name) for name in names}
    ports = lab.command("cat /proc/sys/net/ipv4/ip_local_port_range")

    # All queues on CPU 1, which no driver would choose.
    host = apply(lab, "1")
    assert host.changed
    assert not [item for item in host.items if item.outcome is Outcome.MISSING]
    # QEMU's card has no coalescing in this kernel: told, and no failure.
    refused = {item.setting.target for item in host.items if item.outcome is Outcome.CANNOT}
    assert refused == {"eth0", "eth1"}
    assert [cpus_of(lab, name) for name in names] == [{1}, {1}]
    for on_first, on_second in receive(lab, names):
        assert (on_first, on_second > 0) == (0, True)
    assert not apply(lab, "1").changed

    # ifup gives a card that lost its tuning what it had.
    number, _ = interrupts(lab)[names[1]]
    lab.command(f"ifdown eth1; echo 1 >/proc/irq/{number}/smp_affinity; ifup eth1")
    assert cpus_of(lab, names[1]) == {1}

    # A queue for each CPU, over a boot. eth0's has CPU 0 already, so these begin with CPU 1: again
    # not what their driver does by itself.
    assert apply(lab, "all").changed
    reboot(lab)
    assert [cpus_of(lab, name) for name in names] == [{1}, {0}]
    for cpu, counts in zip((1, 0), receive(lab, names), strict=True):
        assert [count > 0 for count in counts] == [cpu == 0, cpu == 1]
    (report,) = verify_hosts(VerifyRequest(lab.inventory)).hosts
    checks = {check.name: check.outcome for check in report.checks if "tun" in check.name}
    assert [name for name, outcome in checks.items() if outcome is Checked.FAILED] == []
    for name in ("interrupts", "receiving", "sending", "values"):
        assert checks[f"tuned_{name}"] is Checked.PASSED
    assert checks["tuning_is_kept"] is Checked.PASSED
    lab.command("echo 1024 >/proc/sys/net/core/somaxconn")
    (report,) = verify_hosts(VerifyRequest(lab.inventory)).hosts
    (failed,) = [
        check
        for check in report.checks
        if check.outcome is Checked.FAILED and check.name.startswith("tun")
    ]
    assert failed.message == "/proc/sys/net/core/somaxconn is 1024, expected is 16384"

    back = rollback_tuning(RollbackRequest(lab.inventory))
    assert back.exit_code is ExitCode.OK, back.hosts
    assert {name: cpus_of(lab, name) for name in names} == first
    assert lab.command("cat /proc/sys/net/ipv4/ip_local_port_range") == ports
    assert lab.command(FILES) == files
    assert tuning.expected_settings("lab1") == ()


def test_a_shell_alone_undoes_it(lab: machine.Lab) -> None:
    names = [f"{card_of(lab)}-input.{queue}" for queue in range(QUEUES)]
    files = lab.command(FILES)
    first = {name: cpus_of(lab, name) for name in names}
    apply(lab, "1")
    # As on a host whose Python is broken.
    lab.command("chmod 0 /usr/bin/python2.7")
    back = rollback_tuning(RollbackRequest(lab.inventory, plain_ssh=True))
    assert back.exit_code is ExitCode.OK, back.hosts
    assert {name: cpus_of(lab, name) for name in names} == first
    assert lab.command(FILES) == files
