# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark in a guest, with a few connections: that it counts, never how fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fsdeploy.bench import drive, measure, plan, report
from tests.kernel.conftest import Kernels

CONNECTIONS = 300

pytestmark = [pytest.mark.guest, pytest.mark.build]

EL6 = pytest.mark.el6


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive.compile_program(tmp_path_factory.mktemp("bench"))


def bench(
    image: Path,
    program: Path,
    folder: Path,
    request: plan.Request,
    what: str,
    modules: Sequence[Path] = (),
) -> tuple[measure.Phase, ...]:
    """The phases of one guest that did everything it should."""
    (configuration,) = request.configurations
    one = plan.Run(what, configuration, request.cpus[0], 0)
    ran = drive.run_one(request, one, image, program, folder, modules)
    assert ran["failures"] == []
    record: dict[str, Any] = {"runs": [ran]}
    (sample,), problems = report.read(record)
    assert problems == ()
    assert [one.connections for one in sample.phases] == list(plan.phases(request, what))
    for phase in sample.phases:
        assert phase.done == sum(phase.accepted) == phase.connections
        assert phase.dropped == 0
    return sample.phases


@pytest.mark.parametrize(
    ("target", "name", "variant", "mode"),
    [
        pytest.param("el6", "stock", "stock", "server", marks=EL6),
        pytest.param("el6", "stock+reuseport", "stock", "proxy", marks=EL6),
        pytest.param("el6", "patched", "patched", "proxy", marks=EL6),
        ("lts61", "stock", "stock", "proxy"),
        ("lts61", "stock+reuseport", "stock", "server"),
    ],
)
def test_every_connection_is_served(
    target: str,
    name: str,
    variant: str,
    mode: str,
    kernels: Kernels,
    program: Path,
    tmp_path: Path,
) -> None:
    configuration = plan.configuration(target, name)
    request = plan.Request(target, (configuration,), (2,), connections=CONNECTIONS, mode=mode)
    image = kernels.image(target, variant)
    last = bench(image, program, tmp_path, request, plan.RATES)[-1]
    assert last.active == CONNECTIONS * (2 if mode == "proxy" else 1)
    # Packets of each direction of each connection at the least.
    assert sum(last.packets) > 4 * last.active
    if "reuseport" in configuration.features:
        # Which listener gets a connection is drawn by lot; half of 300 are never none.
        assert all(last.accepted)


def test_steered_packets_come_in_where_the_connection_was_opened(
    kernels: Kernels, program: Path, tmp_path: Path
) -> None:
    rfd = plan.configuration("lts61", "rfd")
    request = plan.Request("lts61", (rfd,), (2,), connections=CONNECTIONS, rps=True)
    image = kernels.image("lts61", "patched")
    last = bench(image, program, tmp_path, request, plan.RATES)[-1]
    assert last.steer["Steer_total"] >= 4 * CONNECTIONS
    assert last.steer["Steer_error"] == 0
    # The passive side's packets are left to RPS.
    assert last.steer["Pass_total"] >= 4 * CONNECTIONS
    assert last.steered > 0


@pytest.mark.el6
@pytest.mark.parametrize("rps", [False, True])
def test_with_everything_on_each_core_has_its_own_path(
    rps: bool, kernels: Kernels, program: Path, tmp_path: Path
) -> None:
    everything = plan.configuration("el6", "listen+rfd+established+epoll")
    request = plan.Request("el6", (everything,), (2,), connections=CONNECTIONS, rps=rps)
    image = kernels.image("el6", "patched")
    one = plan.Run(plan.RATES, everything, 2, 0)
    modules = [kernels.module("el6", "patched", name) for name in drive.own_modules(request, one)]
    last = bench(image, program, tmp_path, request, plan.RATES, modules)[-1]
    assert last.hashes["Loc_accept"] == CONNECTIONS
    assert last.hashes["Glo_accept"] == last.hashes["Rem_accept"] == 0
    assert last.steer["Steer_local"] + last.steer["Steer_remote"] == last.steer["Steer_total"]
    assert last.steer["Steer_total"] >= 4 * CONNECTIONS


@pytest.mark.el6
def test_locks_are_counted(kernels: Kernels, program: Path, tmp_path: Path) -> None:
    stock = plan.configuration("el6", "stock")
    request = plan.Request("el6", (stock,), (2,), connections=CONNECTIONS)
    image = kernels.image("el6", "stock-debug")
    last = bench(image, program, tmp_path, request, plan.COUNTS)[-1]
    named = {name for names in report.LOCKS["el6"].values() for name in names}
    assert [
        names for names in report.LOCKS["el6"].values() if not set(names) & set(last.locks)
    ] == []
    assert last.locks["dcache_lock"].acquisitions > 4 * CONNECTIONS
    for name in named & set(last.locks):
        lock = last.locks[name]
        assert lock.contentions <= lock.acquisitions
        assert lock.bounces <= lock.acquisitions


@pytest.mark.parametrize("target", [pytest.param("el6", marks=EL6), "lts61"])
def test_instructions_are_counted(
    target: str, kernels: Kernels, program: Path, tmp_path: Path
) -> None:
    stock = plan.configuration(target, "stock")
    request = plan.Request(target, (stock,), (1,), connections=CONNECTIONS)
    image = kernels.image(target, "stock")
    phases = bench(image, program, tmp_path / "first", request, plan.INSTRUCTIONS)
    # The guest's clock is its instructions: a nanosecond each.
    for phase in phases:
        assert phase.ticks == pytest.approx(phase.seconds * 1e9, rel=0.01)
    # Two dozen system calls and ten packets are not done with less.
    assert phases[-1].ticks > 10_000 * phases[-1].connections
    again = bench(image, program, tmp_path / "again", request, plan.INSTRUCTIONS)
    assert [phase.ticks for phase in again] == [phase.ticks for phase in phases]


def test_a_setting_that_cannot_be_made_fails_the_guest(
    kernels: Kernels, program: Path, tmp_path: Path
) -> None:
    # A stock kernel lacks the switch that the configuration wants written.
    rfd = plan.configuration("lts61", "rfd")
    request = plan.Request("lts61", (rfd,), (1,), connections=CONNECTIONS)
    one = plan.Run(plan.RATES, rfd, 1, 0)
    ran = drive.run_one(request, one, kernels.image("lts61", "stock"), program, tmp_path)
    assert any("enable_receive_flow_deliver" in line for line in ran["failures"])
