# SPDX-License-Identifier: GPL-2.0-only
"""One wave over SSH to many hosts that are all this machine: `fsdeploy.fleet.scale --endpoints N`.

Each host is an SSH server on a loopback port, in a mount namespace of its own whose root is a copy
on write of this machine's: what the playbooks write is in memory and goes away with it. The hosts
are stubs in two places: rpm is a script that installs one kernel, and nobody boots. Everything else
is what a rollout does: the same driver, playbooks, modules and checks, and the package copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdeploy import run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import endpoints
from fsdeploy.fleet.ansible import run_playbook
from fsdeploy.fleet.endpoints import Endpoint
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.transport import Ssh
from fsdeploy.verify.report import Expectation
from fsdeploy.verify.suite import run_checks

MOST = 250  # each takes some 10 MiB of memory

_OLD = "2.6.32-431.el6.x86_64"
_NEW = "2.6.32-431.el6.fs1.0123abcd.x86_64"
_PACKAGE_BYTES = 8 * 2**20

_ENTRY = """\
title CentOS ({release})
\troot (hd0,0)
\tkernel /vmlinuz-{release} ro root=/dev/sda2
\tinitrd /initramfs-{release}.img
"""
_BEFORE = "default=0\ntimeout=5\n" + _ENTRY.format(release=_OLD)
_AFTER = "default=1\ntimeout=5\n" + _ENTRY.format(release=_NEW) + _ENTRY.format(release=_OLD)

# What kernel_package asks of rpm.
_RPM = f"""\
#!/bin/sh
case "$*" in
-qf*) [ -e /boot/vmlinuz-{_NEW} ] && echo kernel-fastsocket-{_NEW} ;;
-K* | *--test*) ;;
-i*)
    echo kernel >/boot/vmlinuz-{_NEW}
    echo initrd >/boot/initramfs-{_NEW}.img
    cp /boot/after.conf /boot/grub/grub.conf ;;
*) exit 1 ;;
esac
"""

# $1 is the host's folder; the rest is the server's command line.
_ENTER = """
set -e
mkdir -p "$1/view"
mount -t tmpfs -o size=128m,mode=755 tmpfs "$1/view"
cd "$1/view"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
for folder in /proc /sys /dev "$1"; do
    mkdir -p "root$folder"
    mount --bind "$folder" "root$folder"
done
mkdir -p root/run/sshd root/home/fsdeploy
rm -rf root/boot
cp -r "$1/boot" root/boot
cp "$1/rpm" root/usr/bin/rpm
shift
exec chroot root "$@"
"""


@dataclass
class _Notes:
    """Rows: what, wall time, wall time a host, remark."""

    hosts: int
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, seconds: float, remark: str = "") -> None:
        each = f"{seconds / self.hosts:.3f} s"
        self.rows.append((what, f"{seconds:.1f} s", each, remark))


def _stage2() -> bytes:
    """As much of Red Hat's stage2 as the boot loader's module reads."""
    head = b"\xea\x70\x82" + b"\x90" * 0x1FD + b"\0\0\0\0\0\0\x03\x02\xff\xff\xff\0"
    head += struct.pack("<I", 0) + b"\0\0" + b"0.97\0/boot/grub/grub.conf\0"
    return head.ljust(2048, b"\x11")


def _furnish(folder: Path, host_key: Path) -> None:
    """What makes a folder a host's."""
    grub = folder / "boot/grub"
    grub.mkdir(parents=True)
    (grub / "grub.conf").write_text(_BEFORE)
    (grub / "stage2").write_bytes(_stage2())
    (folder / "boot/after.conf").write_text(_AFTER)
    for name in (f"vmlinuz-{_OLD}", f"initramfs-{_OLD}.img"):
        (folder / "boot" / name).write_text("old\n")
    (folder / "rpm").write_text(_RPM)
    (folder / "rpm").chmod(0o755)
    # One key for all: making two hundred is no part of this.
    for name in (host_key.name, f"{host_key.name}.pub"):
        shutil.copy2(host_key.with_name(name), folder / name)


@contextlib.contextmanager
def crowd(count: int, folder: Path) -> Iterator[tuple[Endpoint, ...]]:
    """That many hosts, and `hosts.yml` in the folder that leads to them."""
    if not 1 <= count <= MOST:
        raise FsdeployError(f"{count} hosts on one machine: between 1 and {MOST} are meant")
    if os.getuid() != 0:
        raise FsdeployError("mount namespaces are for root: run it as root")
    endpoints.require_server()
    endpoints.make_key(folder / "key")
    endpoints.make_key(folder / "host_key")
    started: list[Endpoint] = []
    try:
        for number in range(1, count + 1):
            own = folder / f"h{number:03d}"
            _furnish(own, folder / "host_key")
            script: list[str | Path] = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", own]
            started.append(
                endpoints.start(
                    own.name,
                    own,
                    folder / "key",
                    # Not what somebody's .bashrc makes of each command.
                    environment={"HOME": "/home/fsdeploy"},
                    program=[*script, run.find("sshd") or "sshd"],
                )
            )
        texts = (endpoint.ssh_config.read_text(encoding="utf-8") for endpoint in started)
        (folder / "ssh_config").write_text("".join(texts), encoding="utf-8")
        (folder / "hosts.yml").write_text(
            "fleet:\n  vars:\n    fsdeploy_ssh_config: ssh_config\n"
            "    ansible_python_interpreter: /usr/bin/python3\n  hosts:\n"
            + "".join(f"    {endpoint.name}:\n" for endpoint in started),
            encoding="utf-8",
        )
        yield tuple(started)
    finally:
        for endpoint in started:
            run.end(endpoint.process)


def _package(folder: Path) -> dict[str, str]:
    """A package that takes as long to copy as a small kernel's, as variables of a playbook."""
    path = folder / f"kernel-fastsocket-{_NEW}.rpm"
    path.write_bytes(os.urandom(_PACKAGE_BYTES))
    return {
        "kernel_package_file": str(path),
        "kernel_package_release": _NEW,
        "kernel_package_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _connections(hosts: Sequence[Endpoint]) -> int:
    """How often somebody logged in, by the servers' own logs."""
    return sum(
        (host.folder / "log").read_text(encoding="utf-8").count("Accepted publickey")
        for host in hosts
    )


def _title(task: str) -> str:
    words = task.rsplit(" : ", 1)[-1]
    return "(check of the arguments)" if words.startswith("Validating arguments") else words


class _Wave:
    """The steps of a wave, each measured."""

    def __init__(self, ssh: Ssh, folder: Path, notes: _Notes) -> None:
        self.ssh = ssh
        self.folder = folder
        self.notes = notes
        self.names = ssh.inventory.names

    def ask(self, what: str, command: str, remark: str) -> None:
        """A command on every host."""
        began = time.monotonic()
        answers = self.ssh.each(
            self.ssh.inventory.hosts, lambda host: self.ssh.execute(host, command, timeout=300)
        )
        self.notes.add(what, time.monotonic() - began, remark)
        for name, answer in answers.items():
            if not answer.ok:
                raise FsdeployError(f"{what}: {name}: {answer.output.strip()}")

    def play(self, name: str, variables: Mapping[str, Any], *, changes: bool) -> None:
        """A playbook on every host; all of them have to change, or none."""
        tasks: list[tuple[str, float]] = []
        what = f"{name}.yml" + ("" if changes else ", nothing to change")
        with ui.step(what):
            began = time.monotonic()
            results = run_playbook(
                name,
                self.ssh,
                self.names,
                variables,
                log=self.folder / "log",
                on_task=lambda task: tasks.append((task, time.monotonic())),
            )
            ended = time.monotonic()
        for host, result in results.items():
            if not result.ok:
                raise FsdeployError(f"{what}: {host}: {result.message}")
        changed = sum(result.changed for result in results.values())
        hosts = len(self.names)
        self.notes.add(what, ended - began, f"{changed} of {hosts} hosts changed")
        times = [began, *(at for _, at in tasks), ended]
        titles = ["(start of Ansible)", *(_title(task) for task, _ in tasks)]
        for title, first, last in zip(titles, times, times[1:], strict=False):
            self.notes.add(f"  {title}", last - first)
        if len(results) != hosts or changed != (hosts if changes else 0):
            raise FsdeployError(f"{what}: {changed} of {hosts} hosts changed")

    def check(self) -> None:
        """The shipped checks on every host; what they find of a stub is of no interest."""
        wanted = Expectation(default=_OLD, previous=_OLD)
        expected = dict.fromkeys(self.names, wanted)
        began = time.monotonic()
        reports = run_checks(self.ssh.config, expected, log=self.folder / "log")
        each = sum(len(report.checks) for report in reports) // len(reports)
        self.notes.add("checks", time.monotonic() - began, f"{each} on each host")
        silent = [report.host for report in reports if not report.reached]
        if silent:
            raise FsdeployError(f"checks: {silent[0]} was not reached")


def measure(count: int, folder: Path) -> list[tuple[str, str, str, str]]:
    """What was seen with that many hosts. FsdeployError when a second run changed something."""
    notes = _Notes(count)
    with contextlib.ExitStack() as stack:
        with ui.step(f"Start {count} SSH servers"):
            hosts = stack.enter_context(crowd(count, folder))
        ssh = stack.enter_context(Ssh(load_inventory(folder / "hosts.yml"), log=folder / "log"))
        wave = _Wave(ssh, folder, notes)
        wave.ask("connect, run true", "true", "a new connection each")
        wave.ask("run true again", "true", "over the shared connection")
        wave.ask("start Python", "/usr/bin/python3 -c pass", "over the shared connection")
        before = _connections(hosts)
        package = _package(folder)
        trial = {"trial_boot_release": _NEW, "trial_boot_arguments": ["panic=10"]}
        wave.play("preflight", {}, changes=False)
        wave.play("stage", package, changes=True)
        wave.play("stage", package, changes=False)
        wave.play("arm", trial, changes=True)
        wave.play("arm", trial, changes=False)
        wave.check()
        wave.play("promote", {"promotion_release": _NEW}, changes=True)
        wave.play("promote", {"promotion_release": _NEW}, changes=False)
        made = _connections(hosts) - before
        each = f"{made / count:.1f}"
        notes.rows.append(("connections made since", str(made), each, "besides the first"))
    return notes.rows
