# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest

from fsdeploy.bench import drive, plan
from fsdeploy.bench.plan import Configuration, Request
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import target

STOCK = Configuration("stock")
PATCHED = Configuration("patched")


def request() -> Request:
    return Request("el6", (STOCK, PATCHED), (1, 2), repeat=3)


@pytest.mark.parametrize(
    ("name", "text", "base", "features"),
    [
        ("el6", "stock", "stock", ()),
        ("el6", "patched", "patched", ()),
        ("el6", "reuseport", "stock", ("reuseport",)),
        ("el6", "patched+reuseport", "patched", ("reuseport",)),
        ("el6", "listen+rfd+epoll", "patched", ("listen", "rfd", "epoll")),
        ("lts61", "rfd", "patched", ("rfd",)),
        ("lts61", "rfd+reuseport", "patched", ("rfd", "reuseport")),
        ("lts61", "patched+rfd+rfd", "patched", ("rfd",)),
    ],
)
def test_a_name_is_a_base_and_features(
    name: str, text: str, base: str, features: tuple[str, ...]
) -> None:
    assert plan.configuration(name, text) == Configuration(base, features)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("lts61", "listen", "no kernel of lts61 has listen"),
        ("lts61", "stock+rfd", "no stock kernel of lts61 has rfd"),
        ("lts61", "patched+fast", "there is no feature fast"),
        ("el6", "", "there is no feature"),
    ],
)
def test_what_a_kernel_lacks_is_refused(name: str, text: str, why: str) -> None:
    with pytest.raises(FsdeployError) as refused:
        plan.configuration(name, text)
    assert why in refused.value.message
    assert "stock, stock+reuseport, patched" in refused.value.hint


@pytest.mark.parametrize("name", target.names())
def test_everything_offered_can_be_asked_for(name: str) -> None:
    offered = plan.offers(name)
    assert offered[0] == "stock"
    assert [plan.configuration(name, one).name for one in offered] == list(offered)


@pytest.mark.parametrize(
    "changes",
    [
        {"configurations": (PATCHED,)},
        {"configurations": (STOCK, STOCK)},
        {"cpus": ()},
        {"cpus": (0,)},
        {"cpus": (64,)},
        {"repeat": 0},
        {"connections": 0},
        {"measures": ()},
    ],
)
def test_a_request_that_would_say_nothing_is_refused(changes: dict[str, object]) -> None:
    plan.check(request())
    with pytest.raises(FsdeployError):
        plan.check(replace(request(), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("measure", [plan.RATES, plan.COUNTS])
def test_each_repetition_runs_every_kernel_on_every_number_of_cpus(measure: str) -> None:
    runs = [one for one in plan.runs(request()) if one.measure == measure]
    assert len(runs) == 3 * 2 * 2
    assert len(set(runs)) == len(runs)


def test_kernels_are_compared_next_to_each_other_and_change_places() -> None:
    runs = [one for one in plan.runs(request()) if one.measure == plan.RATES]
    groups = [
        [one.configuration.name for one in group]
        for _, group in groupby(runs, key=lambda one: (one.repetition, one.cpus))
    ]
    forth, back = ["stock", "patched"], ["patched", "stock"]
    assert groups == [forth, forth, back, back, forth, forth]


def test_instructions_are_counted_on_one_cpu() -> None:
    runs = [one for one in plan.runs(request()) if one.measure == plan.INSTRUCTIONS]
    assert len(runs) == 3 * 2
    assert {one.cpus for one in runs} == {1}


def test_a_measure_that_is_not_asked_for_is_not_run() -> None:
    only = replace(request(), measures=(plan.COUNTS,))
    assert {one.measure for one in plan.runs(only)} == {plan.COUNTS}


def test_the_last_phase_is_the_one_that_is_measured() -> None:
    assert plan.phases(request(), plan.RATES) == (1000, 10000)
    assert plan.phases(request(), plan.INSTRUCTIONS) == (50, 1000, 2000)
    assert plan.phases(replace(request(), connections=20), plan.COUNTS) == (50, 20)


def test_the_guest_is_told_what_a_feature_needs() -> None:
    asked = replace(request(), target="lts61", rps=True, mode="proxy")
    rfd = plan.configuration("lts61", "rfd+reuseport")
    told = plan.environment(asked, plan.Run(plan.COUNTS, rfd, 4, 0))
    assert told["BENCH_MODE"] == "proxy"
    assert told["BENCH_LISTENERS"] == "own"
    assert told["BENCH_COUNTS"] == "1"
    assert told["BENCH_SETTINGS"].split() == [
        "/sys/module/rfd/parameters/enable_receive_flow_deliver=1",
        "/sys/class/net/lo/queues/rx-0/rps_cpus=f",
    ]
    told = plan.environment(request(), plan.Run(plan.RATES, STOCK, 4, 0))
    assert (told["BENCH_SETTINGS"], told["BENCH_COUNTS"]) == ("", "0")
    assert told["BENCH_LISTENERS"] == "shared"


def test_a_module_is_loaded_for_a_switch_and_every_switch_is_set() -> None:
    base = "/sys/module/fastsocket/parameters"
    assert plan.switches("el6", plan.configuration("el6", "patched+reuseport")) == {}
    assert plan.switches("el6", plan.configuration("el6", "listen+epoll")) == {
        f"{base}/enable_listen_spawn": "1",
        f"{base}/enable_receive_flow_deliver": "0",
        f"{base}/enable_local_established": "0",
        f"{base}/enable_fast_epoll": "1",
    }
    for text, modules, spawn in (
        ("patched", (), "0"),
        ("rfd", ("fastsocket",), "0"),
        ("listen", ("fastsocket",), "1"),
    ):
        one = plan.Run(plan.RATES, plan.configuration("el6", text), 2, 0)
        assert drive.own_modules(request(), one) == modules
        assert plan.environment(request(), one)["BENCH_SPAWN"] == spawn
    rfd = plan.Run(plan.RATES, plan.configuration("lts61", "rfd"), 2, 0)
    assert drive.own_modules(replace(request(), target="lts61"), rfd) == ()
