# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fsdeploy import cli
from fsdeploy.bench import drive, plan
from fsdeploy.kernel import build
from tests.unit.bench.lines import phase
from tests.unit.bench.test_report import rate, record, run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked for; "record" is what it is given."""
    seen: dict[str, Any] = {"record": record(rate("stock", 0, 2.0), rate("patched", 0, 1.0))}

    def bench(request: plan.Request, output: Path | None) -> dict[str, Any]:
        seen.update(request=request, output=output)
        made: dict[str, Any] = seen["record"]
        return made

    monkeypatch.setattr(drive, "bench", bench)
    return seen


def command(*words: str) -> int:
    return cli.main(["bench", "connections", "--target", "el6", *words])


def test_the_words_become_a_request(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--kernels stock,reuseport --cpus 1,8 --repeat 2 --rps --mode proxy"
    assert command(*words.split(), "--measures", "counts,rates", "--output", "x.json") == 0
    request = asked["request"]
    assert [one.name for one in request.configurations] == ["stock", "stock+reuseport"]
    assert (request.cpus, request.repeat, request.rps) == ((1, 8), 2, True)
    assert (request.mode, request.measures) == ("proxy", ("rates", "counts"))
    assert asked["output"] == Path("x.json")
    assert "2.00 (2.00 to 2.00)" in capsys.readouterr().out


def test_a_failed_connection_is_said_and_ends_with_1(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = run("rates", "patched", 1, phase(late=3))
    asked["record"] = record(rate("stock", 0, 2.0), rate("patched", 0, 1.0), broken)
    assert command() == 1
    said = capsys.readouterr()
    assert "2.00 (2.00 to 2.00)" in said.out
    assert "patched, 2 CPUs, repetition 2: 3 of 100 connections failed (3 late)" in said.err


@pytest.mark.parametrize(
    "words", ["--cpus x", "--measures speed", "--kernels rfd", "--kernels patched", "--repeat 0"]
)
def test_a_wrong_word_ends_with_2_before_anything_is_built(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a build was asked for")

    monkeypatch.setattr(build, "request", refuse)
    assert command(*words.split()) == 2
