# SPDX-License-Identifier: GPL-2.0-only
"""Servers as Debian packages them, under fsocket-run, on the el6 kernel with fastsocket.ko.

The programs of servers/ drive them, inside one guest with four CPUs and a disk of trixie's
userland, which runs on 2.6.32. `--connections 100000` makes of each load a long one.
"""

from __future__ import annotations

import os

import pytest

from fsdeploy.lab import guest
from tests.kernel.conftest import Kernels
from tests.kernel.server_guests import run_servers
from tests.kernel.test_guests import judge

PROGRAMS = ("nginx", "haproxy", "apache", "lighttpd", "python")
CPUS = 4
CONNECTIONS = 1000
# What a load takes at the least, and what goes with it, on a machine of ordinary speed.
RATE = 100
TESTS = 15
AROUND = 20

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
    connections = int(pytestconfig.getoption("--connections", default=CONNECTIONS))
    return run_servers(
        kernel,
        (module,),
        PROGRAMS,
        tmp_path_factory.mktemp("servers"),
        cpus=CPUS,
        seconds=TESTS * (AROUND + connections / RATE),
        environment={"SERVERS_CONNECTIONS": str(connections)},
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_server(name: str, result: guest.GuestResult) -> None:
    judge(result.program(name), result)


def test_guest_ends_as_agreed(result: guest.GuestResult) -> None:
    assert result.problems == ()
