# SPDX-License-Identifier: GPL-2.0-only
"""Whole lab hosts: they boot through GRUB, come back from a reset and leave nothing behind."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import build
from fsdeploy.lab import image, machine, network, qemu, state

pytestmark = [pytest.mark.lab, pytest.mark.build]

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def wait_until_other_boot(lab: machine.Lab, boot_id: str) -> str:
    """The id of a boot that is not `boot_id`."""
    deadline = time.monotonic() + qemu.scaled(180)
    while time.monotonic() < deadline:
        try:
            now = lab.command(BOOT_ID)
        except FsdeployError:
            now = boot_id
        if now != boot_id:
            return now
        time.sleep(0.5)
    (record,) = lab.hosts
    # Where its CPUs are: a hang of the kernel, or of QEMU, which then has no answer.
    look = {"command-line": "info registers -a"}
    registers = qemu.execute(record.qmp, "human-monitor-command", look)
    pytest.fail(f"no other boot came:\n{qemu.last_lines(record.serial, 20)}\n{registers}")


def boots_through_grub(record: state.HostRecord) -> int:
    return record.serial.read_bytes().count(b"GNU GRUB  version 0.97")


def processes_of_this_lab() -> list[str]:
    folder = f"{state.lab_folder()}/"
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    lines = [state.command_line_of(number) for number in numbers]
    return [" ".join(words) for words in lines if any(word.startswith(folder) for word in words)]


def try_a_host(kernel: build.Build) -> None:
    with machine.lab([kernel.kernel_rpm]) as lab:
        (record,) = lab.hosts
        assert lab.command("uname -r") == kernel.release
        assert lab.command("cat /etc/redhat-release") == "CentOS release 6.5 (Final)"
        assert lab.command("hostname") == "lab1"
        assert f"kernel-stock-{kernel.release}" in lab.command("rpm -qa").splitlines()
        titles = lab.command("grep ^title /etc/grub.conf")
        assert titles == f"title CentOS ({kernel.release})"
        assert lab.command("python -c 'import sys; print(sys.version_info[0])'") == "2"
        # Fails where the library for old kernels does not work.
        assert lab.command("ulimit -n 4000; ulimit -n") == "4000"
        assert "data=journal" not in lab.command("cat /proc/mounts")

        first = lab.command(BOOT_ID)
        lab.command("touch /root/kept; reboot")
        second = wait_until_other_boot(lab, first)
        assert boots_through_grub(record) == 2
        lab.command("test -e /root/kept")

        # A power cut: what was synced is there, the host comes back by itself.
        lab.command("echo whole >/root/synced; sync")
        machine.power("lab1", "off")
        assert machine.lab_status()[0].power == "off"
        machine.power("lab1", "on")
        third = wait_until_other_boot(lab, second)
        assert lab.command("cat /root/synced") == "whole"

        machine.power("lab1", "reset")
        wait_until_other_boot(lab, third)
    assert processes_of_this_lab() == []
    assert state.load() == ()
    assert not (state.lab_folder() / "lab1").exists()


def test_a_host_with_lts61_boots_reboots_and_goes(lab_home: Path, stock_lts61: build.Build) -> None:
    assert lab_home.is_dir()
    try_a_host(stock_lts61)


@pytest.mark.el6
def test_a_host_with_el6_boots_reboots_and_goes(lab_home: Path, stock_el6: build.Build) -> None:
    assert lab_home.is_dir()
    try_a_host(stock_el6)


def test_ansible_sees_a_centos_host(lab_home: Path, stock_lts61: build.Build) -> None:
    assert lab_home.is_dir()
    program = Path(sys.executable).parent / "ansible"
    with machine.lab([stock_lts61.kernel_rpm], hosts=2) as lab:
        wanted = "filter=ansible_distribution*,ansible_service_mgr"
        words = (program, "-i", lab.inventory, "fleet", "-m", "setup", "--one-line", "-a", wanted)
        answer = run.run(words)
        facts = [json.loads(line.split("=>", 1)[1]) for line in answer.output.splitlines()]
        assert len(facts) == 2
        for host in facts:
            assert host["ansible_facts"]["ansible_distribution"] == "CentOS"
            assert host["ansible_facts"]["ansible_distribution_version"] == "6.5"
            assert host["ansible_facts"]["ansible_service_mgr"] == "sysvinit"


def test_an_upside_down_request_changes_nothing(lab_home: Path, stock_lts61: build.Build) -> None:
    assert lab_home.is_dir()
    with machine.lab([stock_lts61.kernel_rpm]) as lab:
        before = lab.command(BOOT_ID)
        # The same again is no work, other settings are refused.
        assert machine.lab_up(machine.LabRequest()).names == ("lab1",)
        with pytest.raises(FsdeployError, match="other settings: --cpus"):
            machine.lab_up(machine.LabRequest(cpus=1))
        assert lab.command(BOOT_ID) == before


@pytest.fixture
def starting(lab_home: Path, stock_lts61: build.Build) -> Iterator[run.Process]:
    """A `fsdeploy lab up` in the moment when its two hosts have been started."""
    assert lab_home.is_dir()
    words = [sys.executable, "-m", "fsdeploy", "lab", "up", "--hosts", "2"]
    process = run.start([*words, "--kernel", stock_lts61.kernel_rpm])
    try:
        deadline = time.monotonic() + qemu.scaled(600)
        while len(processes_of_this_lab()) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        run.end(process)
        machine.lab_down()
        assert processes_of_this_lab() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ended_lab_up_takes_its_hosts_with_it(starting: run.Process, number: int) -> None:
    os.kill(starting.pid, number)
    assert run.wait(starting, qemu.scaled(30)) == 130
    assert processes_of_this_lab() == []
    assert state.load() == ()


def test_hosts_of_a_killed_lab_up_go_with_lab_down(starting: run.Process) -> None:
    os.kill(starting.pid, signal.SIGKILL)
    run.wait(starting, qemu.scaled(30))
    assert len(processes_of_this_lab()) == 2
    assert machine.lab_down() == ("lab1", "lab2")
    assert processes_of_this_lab() == []


def test_a_kernel_that_panics_is_told_at_once(
    lab_home: Path, stock_lts61: build.Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab_home.is_dir()
    real = machine.machine_of

    def without_disk_driver(record: state.HostRecord) -> qemu.Machine:
        wanted = real(record)
        return qemu.Machine(
            name=wanted.name,
            serial=wanted.serial,
            log=wanted.log,
            qmp=wanted.qmp,
            pid_file=wanted.pid_file,
            kernel=stock_lts61.image,
            append="console=ttyS0 root=/dev/vdz",
        )

    monkeypatch.setattr(machine, "machine_of", without_disk_driver)
    began = time.monotonic()
    with pytest.raises(FsdeployError, match=r"lab1 stopped: .*Kernel panic") as problem:
        machine.lab_up(machine.LabRequest(kernels=(stock_lts61.kernel_rpm,)))
    assert time.monotonic() - began < qemu.scaled(60)
    assert problem.value.log is not None
    assert b"Kernel panic" in problem.value.log.read_bytes()
    assert processes_of_this_lab() == []
    assert state.load() == ()


RED_HAT_GRUB = """\
Name: grub
Version: 0.97
Release: 83.test
Summary: GRUB 0.97 laid out as Red Hat lays it out
License: GPL-2.0-or-later
AutoReqProv: no
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%description
Debian's files in Red Hat's places.
%install
mkdir -p %{{buildroot}}/sbin %{{buildroot}}/usr/share/grub/x86_64-redhat
cp {tree}/usr/sbin/grub %{{buildroot}}/sbin/grub
cp {tree}/usr/lib/grub/x86_64-pc/* %{{buildroot}}/usr/share/grub/x86_64-redhat/
%files
/sbin/grub
/usr/share/grub
"""


def test_a_grub_package_of_the_users_boots_the_host(
    lab_home: Path, stock_lts61: build.Build, tmp_path: Path
) -> None:
    assert lab_home.is_dir()
    base = image.ensure_base()
    tree = tmp_path / "tree"
    tree.mkdir()
    run.run(["tar", "-xf", base, "-C", tree, "./usr/sbin/grub", "./usr/lib/grub"])
    spec = tmp_path / "grub.spec"
    spec.write_text(RED_HAT_GRUB.format(tree=tree))
    run.run(["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/rpm", spec])
    (package,) = tmp_path.glob("rpm/RPMS/*/grub-0.97-*.rpm")
    request = machine.LabRequest(kernels=(stock_lts61.kernel_rpm,), grub_rpm=package)
    lab = machine.lab_up(request)
    try:
        assert lab.hosts[0].boot_loader == "GRUB 0.97 (Red Hat)"
        assert lab.command("rpm -q grub").startswith("grub-0.97-83.test")
        assert lab.command("ls /usr/lib/grub 2>/dev/null || echo gone") == "gone"
        assert boots_through_grub(lab.hosts[0]) == 1
    finally:
        machine.lab_down()


def test_a_host_is_on_the_loopback_only(lab_home: Path, stock_lts61: build.Build) -> None:
    assert lab_home.is_dir()
    with machine.lab([stock_lts61.kernel_rpm]) as lab:
        port = lab.hosts[0].port
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        listening = [words[1] for words in sockets if words[3] == "0A"]
        assert [word for word in listening if word.endswith(f":{port:04X}")] == [
            f"0100007F:{port:04X}"
        ]
        # And it reaches nothing outside.
        assert lab.command("curl -sS -m 3 http://10.0.2.2/ >/dev/null 2>&1 || echo no") == "no"
        assert network.answers_ssh(port)
