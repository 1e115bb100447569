# SPDX-License-Identifier: GPL-2.0-only
"""Checks of a host's kernel and boot loader. The first line of each says what must be true."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from fsdeploy.fleet.bootloader import BootState, read_boot
from fsdeploy.fleet.package import is_ours
from fsdeploy.verify.report import Expectation

# What every configuration of ours has, small or large: modules, the network, several CPUs.
_OPTIONS = ("MODULES", "NET", "INET", "SMP", "EPOLL", "PROC_FS", "SYSFS")

# Lines in the kernel's log that mean that it hurt itself.
_HURT = re.compile(
    r"kernel BUG at|BUG: |Oops: |general protection fault|WARNING: at |WARNING: CPU:"
    r"|soft lockup|hung_task|blocked for more than \d+ seconds|lockdep|RCU.*stall|INFO: possible"
)
_COUNTERS = "/proc/net/steer_stat"
_SWITCH = "/sys/module/rfd/parameters/enable_receive_flow_deliver"


@functools.cache
def _boot(machine: Any) -> BootState:
    """The boot loader's state; nothing changes it while the checks run."""

    def read(path: str) -> bytes | None:
        file = machine.file(path)
        return bytes(file.content) if file.exists else None

    return read_boot(read)


def check_kernel_release(machine: Any, expected: Expectation) -> None:
    """The expected kernel runs."""
    if not expected.release:
        pytest.skip("no release is expected")
    running = machine.run("uname -r").stdout.strip()
    assert running == expected.release, f"it runs {running}, expected is {expected.release}"


def check_default_entry(machine: Any, expected: Expectation) -> None:
    """The boot loader's default entry starts the expected kernel."""
    if not expected.default:
        pytest.skip("no default is expected")
    state = _boot(machine)
    assert state.default_release == expected.default, (
        f"the default entry of {state.config or 'the boot loader'} starts"
        f" {state.default_release or 'nothing known'}, expected is {expected.default}"
    )


def check_no_boot_once(machine: Any) -> None:
    """No single boot into another kernel is armed."""
    state = _boot(machine)
    assert not state.once_release, f"a single boot into {state.once_release} is armed"


def check_previous_kernel_bootable(machine: Any, expected: Expectation) -> None:
    """The kernel to fall back to has an entry and its files are there."""
    previous = expected.previous
    if not previous:
        pytest.skip("no kernel to fall back to is expected")
    state = _boot(machine)
    assert previous in state.releases, f"{state.config} has no entry for {previous}"
    entry = state.entry(previous)
    files = [f"/boot/vmlinuz-{previous}"]
    if entry.initrd:
        files.append("/boot/" + entry.initrd.rsplit("/", 1)[-1])
    for name in files:
        file = machine.file(name)
        assert file.exists, f"{name} is missing"
        assert file.size > 0, f"{name} is empty"
    assert machine.file(f"/lib/modules/{previous}").is_directory, (
        f"/lib/modules/{previous} is missing"
    )


def check_modules(machine: Any) -> None:
    """The running kernel has its modules."""
    release = machine.run("uname -r").stdout.strip()
    assert machine.file(f"/lib/modules/{release}/modules.dep").exists, (
        f"/lib/modules/{release}/modules.dep is missing"
    )


def check_package(machine: Any, expected: Expectation) -> None:
    """The kernel comes from a package; one of ours carries the manifest of its build."""
    if not expected.release:
        pytest.skip("no release is expected")
    owner = machine.run("rpm -qf --qf '%%{NAME}\\n' %s", f"/boot/vmlinuz-{expected.release}")
    assert owner.rc == 0, f"no package owns /boot/vmlinuz-{expected.release}"
    if not is_ours(expected.release):
        return  # the distribution's own kernel has no manifest
    manifest = f"/usr/share/fsdeploy/{expected.release}/manifest.json"
    assert machine.file(manifest).exists, f"{manifest} is missing"


def check_package_files(machine: Any, expected: Expectation) -> None:
    """The files of the kernel's package are as they were packaged."""
    if not expected.release:
        pytest.skip("no release is expected")
    answer = machine.run(
        "rpm -Vf --nodeps --noscripts --nomtime %s", f"/boot/vmlinuz-{expected.release}"
    )
    # depmod writes its maps anew when the kernel is installed.
    changed = [
        line
        for line in answer.stdout.splitlines()
        if line.strip() and "/modules." not in line and " g /" not in line
    ]
    assert not changed, f"changed since it was packaged: {changed[0].strip()}"


def check_kernel_log(machine: Any) -> None:
    """The kernel's log has no oops, no bug and no stall."""
    log = machine.run("dmesg").stdout
    hurt = [line for line in log.splitlines() if _HURT.search(line)]
    assert not hurt, f"the kernel's log says: {hurt[0].strip()}"


def check_receive_flow_deliver(machine: Any, expected: Expectation) -> None:
    """Receive Flow Deliver can be steered and counts."""
    if not expected.patched or expected.release.startswith("2.6.32"):
        pytest.skip("the kernel is not one with Receive Flow Deliver")
    switch = machine.file(_SWITCH)
    assert switch.exists, f"{_SWITCH} is missing"
    assert switch.content_string.strip() in ("0", "1"), f"{_SWITCH} has no sense"
    names = machine.file(_COUNTERS).content_string.split("\n", 1)[0].split()
    assert "Steer_total" in names, f"{_COUNTERS} does not count steered packets"


def check_configuration(machine: Any, expected: Expectation) -> None:
    """The kernel's configuration is the one of a host that loads modules and answers."""
    if not expected.release:
        pytest.skip("no release is expected")
    path = f"/boot/config-{expected.release}"
    file = machine.file(path)
    assert file.exists, f"{path} is missing"
    options = set(file.content_string.splitlines())
    missing = [name for name in _OPTIONS if f"CONFIG_{name}=y" not in options]
    assert not missing, f"{path} lacks CONFIG_{missing[0]}=y"


@pytest.mark.wanted
def check_clock_source(machine: Any) -> None:
    """The clock is the processor's own counter, not a slow one."""
    source = machine.file(
        "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    ).content_string.strip()
    assert source in ("tsc", "kvm-clock"), f"the clock source is {source}"


@pytest.mark.wanted
def check_last_words(machine: Any) -> None:
    """No kernel that died left its last words."""
    pstore = machine.run("ls /sys/fs/pstore 2>/dev/null | head -n 1").stdout.strip()
    assert not pstore, f"a kernel left its last words in /sys/fs/pstore/{pstore}"
