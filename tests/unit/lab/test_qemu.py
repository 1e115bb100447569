# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.lab import qemu


@pytest.fixture
def machine(tmp_path: Path) -> qemu.Machine:
    return qemu.Machine(
        name="one", serial=tmp_path / "serial.log", log=tmp_path / "qemu.log", memory_mib=64
    )


def option(machine: qemu.Machine, name: str) -> list[str]:
    """Every value given to an option, in order."""
    words = qemu.command_line(machine)
    return [words[i + 1] for i, word in enumerate(words) if word == name]


def test_guests_never_use_an_accelerator(machine: qemu.Machine) -> None:
    assert option(machine, "-accel") == ["tcg,thread=multi"]
    assert option(replace(machine, parallel=False), "-accel") == ["tcg,thread=single"]
    assert "-enable-kvm" not in qemu.command_line(machine)


def test_nothing_but_what_is_asked_for_is_in_the_machine(machine: qemu.Machine) -> None:
    words = qemu.command_line(machine)
    assert {"-nodefaults", "-no-user-config"} <= set(words)
    assert not {"-kernel", "-netdev", "-blockdev", "-mon", "-no-reboot", "-action"} & set(words)


def test_kernel_initrd_and_arguments(machine: qemu.Machine) -> None:
    direct = replace(
        machine, kernel=Path("/k"), initrd=Path("/i"), append="console=ttyS0", ends_on_reset=True
    )
    assert option(direct, "-kernel") == ["/k"]
    assert option(direct, "-initrd") == ["/i"]
    assert option(direct, "-append") == ["console=ttyS0"]
    assert "-no-reboot" in qemu.command_line(direct)


def test_the_old_timer_chip_is_there_for_boot_loaders_only(machine: qemu.Machine) -> None:
    assert option(machine, "-machine") == ["pc,usb=off,pit=on"]
    assert option(replace(machine, pit=False), "-machine") == ["pc,usb=off,pit=off"]


def test_a_kernel_boots_before_drives(machine: qemu.Machine) -> None:
    direct = replace(machine, kernel=Path("/k"), drives=(qemu.Drive(Path("/a")),))
    assert "virtio-blk-pci,drive=drive0" in option(direct, "-device")


def test_an_overlay_begins_as_its_image(tmp_path: Path) -> None:
    image, overlay = tmp_path / "image", tmp_path / "overlay"
    image.write_bytes(b"x" * 65536)
    qemu.make_overlay(image, overlay)
    # One that a former run has written to is put away.
    run.run(["qemu-io", "-c", "write -P 121 0 512", overlay])
    qemu.make_overlay(image, overlay)
    run.run(["qemu-io", "-c", "read -P 120 0 64k", overlay])
    assert image.read_bytes() == b"x" * 65536


def test_drives_boot_in_the_order_given(machine: qemu.Machine) -> None:
    two = replace(
        machine, drives=(qemu.Drive(Path("/a")), qemu.Drive(Path("/b"), "raw", read_only=True))
    )
    first, second = option(two, "-blockdev")
    assert {"driver=qcow2", "file.filename=/a", "read-only=off"} <= set(first.split(","))
    assert {"driver=raw", "file.filename=/b", "read-only=on"} <= set(second.split(","))
    assert [d for d in option(two, "-device") if "blk" in d] == [
        "virtio-blk-pci,drive=drive0,bootindex=0",
        "virtio-blk-pci,drive=drive1,bootindex=1",
    ]


def test_forwards_listen_on_loopback_only(machine: qemu.Machine) -> None:
    network = qemu.UserNetwork("52:54:00:00:00:01", (qemu.Forward(2201, 22), qemu.Forward(80, 81)))
    (netdev,) = option(replace(machine, networks=(network,)), "-netdev")
    assert netdev == (
        "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2201-:22,hostfwd=tcp:127.0.0.1:80-:81"
    )


def test_a_tap_network_can_have_several_queues(machine: qemu.Machine) -> None:
    network = qemu.TapNetwork("52:54:00:00:00:01", "tap7", queues=4)
    with_tap = replace(machine, networks=(network,))
    assert "queues=4" in option(with_tap, "-netdev")[0]
    assert [d for d in option(with_tap, "-device") if "net" in d] == [
        "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,romfile=,mq=on,vectors=10"
    ]


def test_a_cable_has_a_card_at_each_end(machine: qemu.Machine) -> None:
    cable = qemu.Cable(("52:54:00:00:00:01", "52:54:00:00:00:02"))
    with_cable = replace(machine, networks=(cable,))
    assert option(with_cable, "-netdev") == [
        "hubport,id=net0a,hubid=0",
        "hubport,id=net0b,hubid=0",
    ]
    assert [d for d in option(with_cable, "-device") if "net" in d] == [
        "e1000e,netdev=net0a,mac=52:54:00:00:00:01,romfile=",
        "e1000e,netdev=net0b,mac=52:54:00:00:00:02,romfile=",
    ]


def test_a_comma_in_a_path_stays_in_the_path(machine: qemu.Machine) -> None:
    odd = replace(machine, serial=Path("/a,b"), drives=(qemu.Drive(Path("/c,d")),))
    assert "path=/a,,b" in option(odd, "-chardev")[0]
    assert "file.filename=/c,,d" in option(odd, "-blockdev")[0]


@pytest.mark.parametrize(("text", "limit"), [("", 10), ("1", 10), ("2.5", 25)])
def test_one_factor_scales_time_limits(
    text: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(qemu.TIME_FACTOR, text)
    assert qemu.scaled(10) == limit


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf"])
def test_a_factor_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(qemu.TIME_FACTOR, text)
    with pytest.raises(FsdeployError, match=qemu.TIME_FACTOR):
        qemu.scaled(10)


def test_a_socket_path_too_long_for_the_system_is_refused(
    machine: qemu.Machine, tmp_path: Path
) -> None:
    with pytest.raises(FsdeployError, match="limited to 107 bytes"):
        qemu.start(replace(machine, qmp=tmp_path / ("q" * 108)))


def test_nobody_answers_where_no_machine_is(tmp_path: Path) -> None:
    assert not qemu.is_answering(tmp_path / "qmp")
    with pytest.raises(FsdeployError, match="no answer from QEMU"):
        qemu.execute(tmp_path / "qmp", "query-status")


@pytest.mark.guest
def test_a_machine_answers_and_quits(machine: qemu.Machine, tmp_path: Path) -> None:
    full = replace(
        machine,
        qmp=tmp_path / "qmp",
        pid_file=tmp_path / "pid",
        watchdog=True,
        networks=(qemu.UserNetwork("52:54:00:00:00:01"),),
    )
    with qemu.running(full) as process:
        qemu.wait_ready(full, process)
        assert int((tmp_path / "pid").read_text()) == process.pid
        assert qemu.execute(tmp_path / "qmp", "query-status")["status"] == "running"
        with pytest.raises(FsdeployError, match="refused no-such-command"):
            qemu.execute(tmp_path / "qmp", "no-such-command")
        qemu.execute(tmp_path / "qmp", "quit")
        assert qemu.wait_end(process, 20) == 0


@pytest.mark.guest
def test_a_machine_that_cannot_start_says_why(machine: qemu.Machine, tmp_path: Path) -> None:
    broken = replace(machine, qmp=tmp_path / "qmp", kernel=tmp_path / "missing")
    process = qemu.start(broken)
    with run.running(process), pytest.raises(FsdeployError, match="missing"):
        qemu.wait_ready(broken, process)


@pytest.mark.guest
def test_a_machine_ends_with_its_block(machine: qemu.Machine, tmp_path: Path) -> None:
    with_qmp = replace(machine, qmp=tmp_path / "qmp")
    with qemu.running(with_qmp) as process:
        qemu.wait_ready(with_qmp, process)
        assert qemu.wait_end(process, 0.01) is None
    assert process.returncode is not None
    assert not qemu.is_answering(tmp_path / "qmp")


def test_a_counted_machine_has_the_clock_of_its_instructions(machine: qemu.Machine) -> None:
    assert not {"-icount", "-seed"} & set(qemu.command_line(machine))
    counted = replace(machine, cpus=1, counted=True)
    assert option(counted, "-accel") == ["tcg,thread=single"]
    assert option(counted, "-icount") == ["shift=0,sleep=off"]
    assert option(counted, "-rtc") == ["base=2020-01-01,clock=vm"]


def test_a_counted_machine_has_the_same_random_numbers_each_time(machine: qemu.Machine) -> None:
    assert option(machine, "-device") == ["virtio-rng-pci,rng=entropy"]
    counted = replace(machine, cpus=1, counted=True, seed=7)
    assert option(counted, "-seed") == ["7"]
    assert option(counted, "-cpu") == ["Nehalem,+rdrand"]
    assert option(counted, "-device") == []
