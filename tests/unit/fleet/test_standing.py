"""Where a host stands, from the journal and from itself: each case, and what holds for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.fleet.gate import Standpoint, canary_missing, over_budget
from fsdeploy.fleet.standing import Seen, Standing, stand
from fsdeploy.fleet.states import NEXT, State
from tests.unit.fleet.fakes import NEW, OLD

FACTS = {"previous": OLD, "boot_id": "B"}
OTHER = "2.6.32-1"
WAY = (State.PREFLIGHT, State.STAGED, State.ARMED, State.TRIAL, State.VERIFIED)


def seen(boot: str, running: str, once: str = "", tried: str = "") -> Seen:
    return Seen(boot, running, OLD, once, tried)


@pytest.mark.parametrize(
    ("state", "host", "where"),
    [
        # The play was over, the journal did not hear of it.
        (State.STAGED, seen("B", OLD, NEW, NEW), Standing(State.ARMED)),
        (State.STAGED, seen("B", OLD), Standing(State.STAGED)),
        (State.STAGED, seen("C", OLD), Standing(State.STAGED)),
        (State.STAGED, seen("C", OLD, NEW, NEW), Standing(State.ARMED)),
        (State.STAGED, seen("C", OLD, "", NEW), Standing(State.TRIAL, fell=True)),
        (State.STAGED, seen("C", NEW, "", NEW), Standing(State.TRIAL)),
        (State.STAGED, seen("C", OTHER), Standing(State.PREFLIGHT)),
        (State.ARMED, seen("B", OLD, NEW, NEW), Standing(State.ARMED)),
        (State.ARMED, seen("B", OLD), Standing(State.STAGED)),
        (State.ARMED, seen("C", NEW, "", NEW), Standing(State.TRIAL)),
        (State.ARMED, seen("C", OLD, "", NEW), Standing(State.TRIAL, fell=True)),
        # Not told to boot yet, or told and not down yet.
        (State.TRIAL, seen("B", OLD, NEW, NEW), Standing(State.TRIAL)),
        (State.TRIAL, seen("B", OLD), Standing(State.STAGED)),
        (State.TRIAL, seen("C", NEW, "", NEW), Standing(State.TRIAL)),
        (State.TRIAL, seen("C", OLD, "", NEW), Standing(State.TRIAL, fell=True)),
        (State.TRIAL, seen("C", OTHER, "", NEW), Standing(State.TRIAL, fell=True)),
        (State.VERIFIED, seen("C", NEW, "", NEW), Standing(State.VERIFIED)),
        (State.VERIFIED, seen("D", OLD, "", NEW), Standing(State.VERIFIED, fell=True)),
        # Only the boot is known: nothing is taken back for want of knowledge.
        (State.ARMED, Seen("B", OLD), Standing(State.ARMED)),
        (State.TRIAL, Seen("C", NEW), Standing(State.TRIAL)),
    ],
)
def test_where_a_host_stands(state: State, host: Seen, where: Standing) -> None:
    assert stand(state, FACTS, NEW, host) == where


answers = st.builds(
    Seen,
    st.sampled_from(["B", "C"]),
    st.sampled_from([OLD, NEW, OTHER]),
    st.sampled_from([None, OLD, NEW]),
    st.sampled_from([None, "", NEW]),
    st.sampled_from([None, "", NEW]),
)


@given(st.sampled_from(WAY), answers)
def test_the_journal_has_a_way_to_wherever_a_host_stands(state: State, host: Seen) -> None:
    where = stand(state, FACTS, NEW, host).state
    reached = {state}
    while where not in reached:
        step = {after for before in reached for after in NEXT[before] if after in WAY}
        assert not step <= reached, f"no way from {state} to {where}"
        reached |= step


@given(st.sampled_from(WAY), answers)
def test_what_runs_the_new_kernel_is_never_booted_again(state: State, host: Seen) -> None:
    where = stand(state, FACTS, NEW, host)
    if host.running == NEW:
        assert where.state in (State.TRIAL, State.VERIFIED)
        assert not where.fell
    elif where.fell:
        assert where.state in (State.TRIAL, State.VERIFIED)


states = st.sampled_from(State)
standpoints = st.builds(
    Standpoint,
    st.text("abc", min_size=1, max_size=3),
    states,
    stuck=st.booleans(),
    restarted=st.booleans(),
)


@given(st.lists(standpoints), st.integers(0, 5))
def test_the_budget_is_how_many_may_fail(hosts: list[Standpoint], budget: int) -> None:
    failed = sum(host.failed for host in hosts)
    assert bool(over_budget(hosts, budget)) == (failed > budget)


@pytest.mark.parametrize("state", [State.PLANNED, State.PREFLIGHT, State.REFUSED])
def test_a_host_on_which_nothing_was_done_is_no_failure(state: State) -> None:
    assert not over_budget([Standpoint("a", state, stuck=True)], 0)


def test_the_reason_names_the_hosts() -> None:
    hosts = [Standpoint("a", State.LOST, "gone"), Standpoint("b", State.ROLLED_BACK)]
    assert over_budget(hosts, 1) == "2 hosts failed, the budget is 1: a (lost: gone), b"


def test_a_class_waits_for_its_canary_whatever_the_budget() -> None:
    hosts = [
        Standpoint("a", State.PROMOTED, canary=True),
        Standpoint("b", State.REFUSED, "no space", "blade", canary=True),
    ]
    assert "b, the canary of blade, did not get through (refused: no space)" in canary_missing(
        hosts
    )
    assert not canary_missing(hosts[:1])
