# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest

from fsdeploy.bench.measure import BadReport, Lock, parse, parse_locks
from tests.unit.bench.lines import LOCK_EL6, LOCK_LTS61, phase


def test_a_phase_is_read_whole() -> None:
    seen = parse(phase(1000, seconds=4.0, locks=[LOCK_EL6, LOCK_LTS61]))
    assert (seen.connections, seen.done, seen.failed, seen.errors) == (1000, 1000, 0, 0)
    assert seen.rate == 250
    assert seen.accepted == (500, 500)
    assert (seen.accepted_local, seen.active, seen.active_local) == (50, 1000, 90)
    # Differences of hexadecimal counts.
    assert (seen.packets, seen.dropped, seen.steered) == ((500, 500), 1, 10)
    assert seen.steer == {
        "Pass_total": 10, "Steer_total": 100, "Steer_remote": 70, "Steer_local": 20,
    }  # fmt: skip
    assert seen.hashes == {"Com_accept": 50, "Loc_accept": 60, "Rem_accept": 10, "Glo_accept": 30}
    # 100 + 160 + 10 of 300 were busy.
    assert seen.busy == pytest.approx(0.9)
    assert seen.locks["dcache_lock"] == Lock(70, 2789, 12345)
    assert seen.locks["&ep->lock"] == Lock(12, 4801, 9876)


def test_connections_never_begun_have_failed_too() -> None:
    seen = parse(phase(1000, done=900, late=32))
    assert seen.failed == 100
    assert seen.failures["late"] == 32


def test_the_proxys_own_connections_count_as_opened() -> None:
    lines = [
        line.replace("active=0 active_local=0", "active=50 active_local=7") for line in phase()
    ]
    seen = parse([*lines, "# backend cpu=0 accepted=50 local=0 errors=3 active=0 active_local=0"])
    assert (seen.active, seen.active_local, seen.errors) == (200, 104, 3)
    assert sum(seen.accepted) == 100


def test_a_phase_too_short_for_the_clock_was_busy() -> None:
    before = "cpu 10 0 20 100 5 0 1"
    lines = [line.replace("cpu 110 0 180 120 15 0 11", before) for line in phase()]
    assert lines != phase()
    assert parse(lines).busy == 1


@pytest.mark.parametrize("key", ["softnet", "stat", "phase", "client", "server"])
def test_a_phase_that_lacks_something_is_none(key: str) -> None:
    assert parse(phase())
    with pytest.raises(BadReport):
        parse([line for line in phase() if not line.startswith(f"# {key} ")])


def test_a_lock_line_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(BadReport, match="not a line of lock_stat"):
        parse(phase(locks=[LOCK_EL6.rsplit(" ", 3)[0]]))


def test_a_kernel_that_stopped_counting_is_told() -> None:
    assert parse(phase()).locks_off == ""
    assert "disabled" in parse([*phase(), "# locks off: *WARNING* disabled"]).locks_off


def test_locks_of_one_name_are_one_and_nested_ones_are_not() -> None:
    numbers = "1 2 0.00 0.00 0.00 30 400 0.00 0.00 0.00"
    found = parse_locks(
        [
            f"&tcp_hashinfo.bhash[i].lock: {numbers}",
            f"&tcp_hashinfo.bhash[i].lock#2: {numbers}",
            f"slock-AF_INET: {numbers}",
            f"slock-AF_INET/1: {numbers}",
            f"tasklist_lock-W: {numbers}",
            f"tasklist_lock-R:   {numbers}",
        ]
    )
    assert found == {
        "&tcp_hashinfo.bhash[i].lock": Lock(4, 60, 800),
        "slock-AF_INET": Lock(2, 30, 400),
        "slock-AF_INET/1": Lock(2, 30, 400),
        "tasklist_lock": Lock(4, 60, 800),
    }
