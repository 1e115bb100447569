# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
from typing import Any

import pytest

from fsdeploy.bench import report
from tests.unit.bench.lines import LOCK_EL6, phase


def run(
    measure: str, name: str, repetition: int, *phases: list[str], cpus: int = 2, **more: Any
) -> dict[str, Any]:
    return {
        "measure": measure,
        "configuration": name,
        "cpus": cpus,
        "repetition": repetition,
        "failures": [],
        "load": [0.5, 1.5],
        "phases": list(phases),
        **more,
    }


def record(*runs: dict[str, Any], measures: tuple[str, ...] = ("rates",)) -> dict[str, Any]:
    made = {
        "request": {
            "target": "el6",
            "configurations": ["stock", "patched"],
            "cpus": [2],
            "repeat": 3,
            "connections": 100,
            "mode": "server",
            "rps": False,
            "measures": list(measures),
        },
        "host": {"cpus": 2},
        "runs": list(runs),
    }
    # It is read back from a file as well.
    return dict(json.loads(json.dumps(made)))


def rate(name: str, repetition: int, seconds: float) -> dict[str, Any]:
    return run("rates", name, repetition, phase(), phase(seconds=seconds))


def test_a_ratio_is_the_median_of_pairs_and_not_of_rates() -> None:
    # The machine was four times slower in the second repetition.
    samples, problems = report.read(
        record(
            *(rate("stock", 0, 4.0), rate("patched", 0, 2.0)),
            *(rate("patched", 1, 8.0), rate("stock", 1, 16.0)),
            *(rate("stock", 2, 3.0), rate("patched", 2, 1.0)),
        )
    )
    assert problems == ()
    found = report.ratios(samples, "patched", 2)
    assert found is not None
    assert (found.middle, found.low, found.high) == pytest.approx((2.0, 2.0, 3.0))
    assert report.ratios(samples, "patched", 4) is None


def test_a_guest_without_its_pair_is_in_no_ratio() -> None:
    samples, _ = report.read(
        record(rate("stock", 0, 4.0), rate("patched", 0, 2.0), rate("patched", 1, 0.1))
    )
    assert str(report.ratios(samples, "patched", 2)) == "2.00 (2.00 to 2.00)"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (run("rates", "stock", 0, phase(late=3)), "3 of 100 connections failed (3 late)"),
        (run("rates", "stock", 0, phase(done=90)), "10 of 100 connections failed (not begun)"),
        (run("rates", "stock", 0, phase(errors=2)), "2 errors of servers"),
        (run("rates", "stock", 0, phase()[:5]), "not the report of a phase"),
        (run("rates", "stock", 0, phase(), failures=["it crashed"]), "it crashed"),
    ],
)
def test_a_guest_in_which_something_failed_is_named_and_left_out(
    broken: dict[str, Any], why: str
) -> None:
    samples, problems = report.read(record(broken, rate("patched", 0, 1.0)))
    assert [one.configuration for one in samples] == ["patched"]
    assert len(problems) == 1
    assert problems[0].startswith("rates, stock, 2 CPUs, repetition 1: ")
    assert why in problems[0]
    (table,) = report.tables(record(broken, rate("patched", 0, 1.0)))
    assert table.rows[0] == ("2", "stock", "0", "–", "–")
    assert table.rows[1] == ("2", "patched", "1", "100", "–")


def test_the_table_of_rates() -> None:
    (table,) = report.tables(record(rate("stock", 0, 4.0), rate("patched", 0, 2.0)))
    assert table.rows == (
        ("2", "stock", "1", "25", "1"),
        ("2", "patched", "1", "50", "2.00 (2.00 to 2.00)"),
    )


def test_locks_are_given_for_a_thousand_connections() -> None:
    other = "tasklist_lock: 1 2 0.00 0.00 0.00 30 400 0.00 0.00 0.00"
    locks, cores = report.tables(
        record(
            run("counts", "stock", 0, phase(), phase(1000, locks=[LOCK_EL6, other])),
            run("counts", "patched", 0, phase(), phase(2000, locks=[other])),
            measures=("counts",),
        )
    )
    stock, patched = (dict(zip(locks.columns, row, strict=True)) for row in locks.rows)
    assert stock["dcache_lock"] == "70 / 2,789"
    # Stock took it, so there is one; the other kernel did not.
    assert patched["dcache_lock"] == "0 / 0"
    # Nobody ever saw such a lock: maybe it has another name.
    assert (stock["epmutex"], patched["epmutex"]) == ("–", "–")
    assert (stock["all others"], patched["all others"]) == ("2 / 30", "1 / 15")
    first = dict(zip(cores.columns, cores.rows[0], strict=True))
    assert (first["accepted"], first["opened"], first["lost"]) == ("5 %", "9 %", "1")
    assert first["packets steered to their core"] == "90 %"
    assert first["packets per connection"] == "1.0"


def test_cores_are_not_told_by_a_kernel_that_cannot_tell() -> None:
    silent = [
        line.replace("local=40", "local=0").replace("local=50", "local=0")
        .replace("local=20", "local=0").replace("local=30", "local=0")
        for line in phase()
    ]  # fmt: skip
    plain = [line for line in silent if not line.startswith(("# hash", "# steer"))]
    _, cores = report.tables(
        record(
            run("counts", "stock", 0, plain),
            run("counts", "patched", 0, silent),
            measures=("counts",),
        )
    )
    stock, patched = (row[2:5] for row in cores.rows)
    assert stock == ("–", "–", "–")
    # Not by the sockets, but by the counters of the module.
    assert patched == ("60 %", "–", "90 %")


def test_instructions_are_those_of_more_connections_less_those_of_fewer() -> None:
    def counted(name: str, repetition: int, each: int, once: int) -> dict[str, Any]:
        some, twice = phase(100, ticks=100 * each + once), phase(200, ticks=200 * each + once)
        return run("instructions", name, repetition, phase(), some, twice, cpus=1)

    (table,) = report.tables(
        record(
            counted("stock", 0, 100_000, 7_000_000),
            counted("stock", 1, 102_000, 3_000_000),
            counted("stock", 2, 101_000, 9_000_000),
            counted("patched", 0, 90_900, 7_000_000),
            measures=("instructions",),
        )
    )
    assert table.rows == (
        ("stock", "3", "101,000 (100,000 to 102,000)", "1.000", "10 %"),
        ("patched", "1", "90,900 (90,900 to 90,900)", "0.900", "10 %"),
    )


def test_the_conditions_are_told() -> None:
    text = report.conditions(record(rate("stock", 0, 1.0)))
    assert "load 0.5 to 1.5" in text
    assert "RPS off" in text
