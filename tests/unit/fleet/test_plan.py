"""Waves: what holds for every fleet and every policy, and a few plans looked at in full."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.plan import CANARIES, REST, Candidate, Policy, plan_rollout

CLASSES = ("", "old", "new", "huge")


def of_classes(classes: list[str]) -> list[Candidate]:
    return [Candidate(f"h{number}", name) for number, name in enumerate(classes)]


fleets = st.lists(st.sampled_from(CLASSES), max_size=120).map(of_classes)
large_fleets = st.lists(st.sampled_from(CLASSES), min_size=40, max_size=120).map(of_classes)
policies = st.builds(
    Policy,
    shares=st.lists(st.integers(1, 50).map(float), max_size=4, unique=True)
    .filter(lambda shares: sum(shares) <= 100)
    .map(tuple),
    soak=st.floats(0, 1000),
    budget=st.integers(0, 5),
    at_once=st.integers(1, 60),
)


@given(fleets, policies)
def test_every_host_is_in_one_wave(fleet: list[Candidate], policy: Policy) -> None:
    plan = plan_rollout("r", fleet, policy)
    planned = [host for wave in plan.waves for host in wave.hosts]
    assert sorted(host.name for host in planned) == sorted(host.name for host in fleet)
    assert set(planned) == set(fleet)
    assert all(0 < len(wave.hosts) <= policy.at_once for wave in plan.waves)
    assert [wave.number for wave in plan.waves] == [*range(1, len(plan.waves) + 1)]


@given(fleets, policies)
def test_no_host_comes_before_the_canary_of_its_class(
    fleet: list[Candidate], policy: Policy
) -> None:
    plan = plan_rollout("r", fleet, policy)
    canaries = [host for wave in plan.waves if wave.is_canary for host in wave.hosts]
    known = {host.hardware for host in fleet} - {""}
    assert sorted(host.hardware for host in canaries) == sorted(known)
    flags = [wave.is_canary for wave in plan.waves]
    assert flags == sorted(flags, reverse=True)


@given(fleets, policies)
def test_hosts_of_an_unknown_class_come_after_all_others(
    fleet: list[Candidate], policy: Policy
) -> None:
    plan = plan_rollout("r", fleet, policy)
    known = [bool(host.hardware) for wave in plan.waves for host in wave.hosts]
    assert known == sorted(known, reverse=True)


@given(fleets, policies)
def test_waves_have_the_share_that_was_asked_for(fleet: list[Candidate], policy: Policy) -> None:
    plan = plan_rollout("r", fleet, policy)
    sizes = {
        name: sum(len(wave.hosts) for wave in group)
        for name, group in itertools.groupby(plan.waves, lambda wave: wave.name.split(",")[0])
    }
    left = len(fleet) - sizes.get(CANARIES, 0)
    for share in policy.shares:
        wanted = min(left, math.ceil(len(fleet) * share / 100))
        left -= wanted
        if policy.shares.count(share) == 1 and f"{share:g} %" in sizes:
            assert sizes[f"{share:g} %"] == wanted
    assert sizes.get(REST, 0) == left


@given(fleets, policies)
def test_a_soak_lies_between_groups_and_not_after_the_last(
    fleet: list[Candidate], policy: Policy
) -> None:
    plan = plan_rollout("r", fleet, policy)
    for wave, following in itertools.pairwise(plan.waves):
        same = wave.name.split(",")[0] == following.name.split(",")[0] and "part" in wave.name
        first_part = following.name.endswith(tuple(f"part 1 of {n}" for n in range(130)))
        assert wave.soak == (0 if same and not first_part else policy.soak)
    if plan.waves:
        assert plan.waves[-1].soak == 0


@given(large_fleets, policies)
def test_every_beginning_has_its_part_of_each_class(fleet: list[Candidate], policy: Policy) -> None:
    plan = plan_rollout("r", fleet, policy)
    order = [
        host for wave in plan.waves if not wave.is_canary for host in wave.hosts if host.hardware
    ]
    for name in {host.hardware for host in order}:
        total = sum(host.hardware == name for host in order)
        met = 0
        for place, host in enumerate(order, 1):
            met += host.hardware == name
            # Rounded by half a host itself, and moved by the rounding of the other classes.
            assert abs(met - total * place / len(order)) <= 0.5 + len(CLASSES) / 2


@given(fleets, policies)
def test_the_same_fleet_has_the_same_plan(fleet: list[Candidate], policy: Policy) -> None:
    assert plan_rollout("r", fleet, policy) == plan_rollout("r", list(fleet), policy)


def test_a_fleet_of_two_classes() -> None:
    fleet = [Candidate(f"a{n}", "old") for n in range(30)]
    fleet += [Candidate(f"b{n}", "new") for n in range(10)]
    plan = plan_rollout("r", fleet, Policy(at_once=20, soak=60))
    told = [(wave.name, len(wave.hosts), wave.soak) for wave in plan.waves]
    assert told == [
        ("canaries", 2, 60),
        ("5 %", 2, 60),
        ("25 %", 10, 60),
        ("the rest, part 1 of 2", 13, 0),
        ("the rest, part 2 of 2", 13, 0),
    ]
    assert plan.waves[0].names == ("a0", "b0")
    assert sum(name.startswith("b") for name in plan.waves[2].names) in (2, 3)


def test_one_host_is_its_own_canary() -> None:
    (wave,) = plan_rollout("r", [Candidate("a", "x")]).waves
    assert (wave.name, wave.names, wave.soak) == ("canaries", ("a",), 0)


@pytest.mark.parametrize(
    "wrong",
    [{"shares": (0.0,)}, {"shares": (60.0, 50.0)}, {"soak": -1.0}, {"budget": -1}, {"at_once": 0}],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FsdeployError):
        Policy(**wrong)  # type: ignore[arg-type]
