# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong in a rollout, done to lab hosts: each fault ends as docs/fleet.md says.

A host is made to fail by a driver (fault/fault.c) that its own start scripts load once the kernel
of the rollout runs: before its network is up, with the file systems mounted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import run
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import rollout as fleet_rollout
from fsdeploy.fleet.drive import FleetDriver
from fsdeploy.fleet.driver import StepResult
from fsdeploy.fleet.journal import HostRecord, Journal
from fsdeploy.fleet.package import KernelPackage, read_package
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollback import RollbackRequest, rollback_kernel
from fsdeploy.fleet.rollout import ResumeRequest, RolloutRequest, resume, rollout
from fsdeploy.fleet.states import State
from fsdeploy.fleet.verify import VerifyRequest, verify_hosts
from fsdeploy.kernel import build
from fsdeploy.lab import machine, qemu

pytestmark = [pytest.mark.lab, pytest.mark.build]

FSDEPLOY = (sys.executable, "-m", "fsdeploy")
SOURCE = Path(__file__).parent / "fault" / "fault.c"
# Where a CentOS host loads drivers at boot.
STARTER = "/etc/sysconfig/modules/fault.modules"
NO_WAVES = Policy(shares=(), soak=0, budget=2)


@pytest.fixture(scope="module")
def patched() -> build.Build:
    return build.build_kernel(build.request("lts61", fragments=("lab",)))


@pytest.fixture(scope="module")
def driver(patched: build.Build, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """fault.ko, built against what the devel package of the kernel holds."""
    folder = tmp_path_factory.mktemp("fault")
    (devel,) = patched.directory.glob("*-devel-*.rpm")
    with (folder / "devel.cpio").open("wb") as out:
        assert run.wait(run.start(["rpm2cpio", devel], stdout=out), 60) == 0
    with (folder / "devel.cpio").open("rb") as archive:
        words = ["cpio", "-idm", "--quiet"]
        assert run.wait(run.start(words, cwd=folder, stdin=archive), 60) == 0
    (folder / "fault.c").write_bytes(SOURCE.read_bytes())
    (folder / "Makefile").write_text("obj-m := fault.o\n")
    tree = folder / "usr" / "src" / "kernels" / patched.release
    run.run(["make", "-C", tree, f"M={folder}", "modules"])
    return (folder / "fault.ko").read_bytes()


@pytest.fixture(scope="module")
def three(lab_home: Path, stock_lts61: build.Build) -> Iterator[machine.Lab]:
    """Three hosts on the stock kernel, for all faults one after the other."""
    assert lab_home.is_dir()
    with machine.lab([stock_lts61.kernel_rpm], hosts=3) as up:
        yield up


@pytest.fixture
def lab(three: machine.Lab, stock_lts61: build.Build) -> Iterator[machine.Lab]:
    """The three hosts as they were: on the stock kernel, with nothing of ours on them."""
    yield three
    for name in three.names:
        three.command(f"rm -f {STARTER} /root/fault.ko /root/full", name)
    moved = [name for name in three.names if running(three, name) != stock_lts61.release]
    if moved:
        back = rollback_kernel(
            RollbackRequest(three.inventory, limit=tuple(moved), to=stock_lts61.release)
        )
        assert back.exit_code is ExitCode.OK, back.hosts
    for name in three.names:
        three.command("rpm -qa 'kernel-fastsocket' | xargs -r rpm -e", name)


def running(lab: machine.Lab, name: str) -> str:
    return lab.command("uname -r", name)


def plant(lab: machine.Lab, name: str, driver: bytes, how: str, release: str) -> None:
    """Make a host's start scripts load the driver when it runs that kernel."""
    text = base64.b64encode(driver).decode()
    lab.command(f"echo {text} | base64 -d >/root/fault.ko", name)
    script = f"""#!/bin/sh
[ "$(uname -r)" = {release} ] && insmod /root/fault.ko how={how}
exit 0
"""
    lab.command(
        f"printf %s {shlex.quote(script)} >{STARTER}; chmod 755 {STARTER}; sync",
        name,
    )


def is_as_before(lab: machine.Lab, name: str, release: str) -> None:
    """The host runs its old kernel by default, nothing of the rollout is on it."""
    assert running(lab, name) == release
    assert "kernel-fastsocket" not in lab.command("rpm -qa", name)
    report = verify_hosts(VerifyRequest(lab.inventory, release, (name,)))
    (host,) = report.hosts
    assert host.ok, [check for check in host.checks if check.outcome == "failed"]


def scaled_span(seconds: float) -> str:
    return f"{qemu.scaled(seconds):g}"


def test_one_host_panics_and_one_hangs_and_nobody_is_needed(
    lab: machine.Lab, patched: build.Build, stock_lts61: build.Build, driver: bytes
) -> None:
    plant(lab, "lab2", driver, "panic", patched.release)
    plant(lab, "lab3", driver, "hard", patched.release)
    answer = run.run(
        [
            *FSDEPLOY,
            "rollout",
            *("--inventory", lab.inventory, "--kernel", patched.kernel_rpm, "--json"),
            *("--waves", "", "--soak", "0", "--budget", "2"),
            *("--trial-timeout", scaled_span(60)),
            *("--power-command", shlex.join([*FSDEPLOY, "lab", "power", "{host}", "reset"])),
        ],
        check=False,
    )
    print(answer.output)
    report = json.loads(answer.output[answer.output.index("\n{\n") :])
    first, second, third = report["hosts"]
    assert (first["state"], first["kernel"]) == ("promoted", patched.release)
    assert second["state"] == third["state"] == "rolled-back"
    assert "by itself after" in second["reason"]
    assert "after its power was switched" in third["reason"]
    assert report["stopped"] == ""
    assert report["exit_code"] == answer.returncode == ExitCode.CHECK_FAILED
    assert running(lab, "lab1") == patched.release
    is_as_before(lab, "lab2", stock_lts61.release)
    is_as_before(lab, "lab3", stock_lts61.release)
