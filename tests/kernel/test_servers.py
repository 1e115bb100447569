# SPDX-License-Identifier: GPL-2.0-only
"""Servers as Debian packages them, under fsocket-run, on the el6 kernel with fastsocket.ko.

The programs of servers/ drive them, inside one guest with four CPUs and a disk of trixie's
userland, which runs on 2.6.32. `--connections 100000` makes of each load a long one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.kernel import library
from fsdeploy.lab import guest, image, initramfs
from tests.kernel.conftest import Kernels
from tests.kernel.test_guests import judge

SERVERS = Path(__file__).parent / "servers"
PROGRAMS = ("nginx", "haproxy", "apache", "lighttpd", "python")
CPUS = 4
CONNECTIONS = 1000
# What a load takes at the least, and what goes with it, on a machine of ordinary speed.
RATE = 100
TESTS = 15
AROUND = 20
SHIM = ("-shared", "-fPIC", "-O2", "-nostdlib", "-ffreestanding", "-Wall", "-Wextra", "-Werror")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.build,
    pytest.mark.el6,
    pytest.mark.skipif(os.geteuid() != 0, reason="the disk is built by root"),
]


@pytest.fixture(scope="module")
def result(
    kernels: Kernels, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> guest.GuestResult:
    kernel = kernels.image("el6", "patched")
    module = kernels.module("el6", "patched", "fastsocket")
    folder = tmp_path_factory.mktemp("servers")
    guest.compile_program(SERVERS / "enter.c", folder / "enter")
    guest.compile_program(SERVERS / "load.c", folder / "load")
    files: dict[str, initramfs.Entry] = {
        f"/guest/{path.name}": initramfs.File(path.read_bytes()) for path in SERVERS.glob("*.py")
    }
    files["/guest/load"] = initramfs.File((folder / "load").read_bytes(), 0o755)
    shim = folder / "newer.so"
    run.run(["gcc", *SHIM, "-o", shim, SERVERS / "newer.c"])
    files["/guest/newer.so"] = initramfs.File(shim.read_bytes(), 0o755)
    root = library.build_library().directory / "root"
    for name in ("usr/bin/fsocket-run", "usr/lib64/libfsocket.so"):
        files[f"/guest/{Path(name).name}"] = initramfs.File((root / name).read_bytes(), 0o755)
    connections = int(pytestconfig.getoption("--connections", default=CONNECTIONS))
    seconds = TESTS * (AROUND + connections / RATE)
    return guest.run_guest(
        guest.Guest(
            kernel=kernel,
            modules=(module,),
            programs=tuple(guest.Program(name, folder / "enter", seconds) for name in PROGRAMS),
            cpus=CPUS,
            memory_mib=1024,
            disks=(image.ensure_guest_disk(image.SERVERS),),
            environment={"SERVERS_CONNECTIONS": str(connections)},
            files=files,
        ),
        folder,
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_server(name: str, result: guest.GuestResult) -> None:
    judge(result.program(name), result)


def test_guest_ends_as_agreed(result: guest.GuestResult) -> None:
    assert result.problems == ()
