from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from fsdeploy import ui
from fsdeploy.errors import FsdeployError


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(ui, "_out", Console(file=out, highlight=False, soft_wrap=True))
    monkeypatch.setattr(ui, "_err", Console(file=err, highlight=False, soft_wrap=True))
    return out, err


def test_results_go_to_stdout_and_the_way_there_to_stderr(
    streams: tuple[io.StringIO, io.StringIO],
) -> None:
    out, err = streams
    with ui.step("outer"):
        ui.note("inside [not markup]")
    ui.say("result")
    assert out.getvalue() == "result\n"
    lines = err.getvalue().splitlines()
    assert lines[:2] == ["outer …", "  inside [not markup]"]
    assert lines[2].startswith("outer: ")


def test_a_step_that_fails_says_so(streams: tuple[io.StringIO, io.StringIO]) -> None:
    def fail() -> None:
        with ui.step("work"):
            raise ValueError("gave up")

    with pytest.raises(ValueError, match="gave up"):
        fail()
    assert "work: stopped after" in streams[1].getvalue()
    ui.note("after")
    assert streams[1].getvalue().endswith("\nafter\n")


def test_an_error_says_what_and_what_to_do(streams: tuple[io.StringIO, io.StringIO]) -> None:
    ui.error(FsdeployError("it broke", hint="mend it"))
    assert streams[1].getvalue() == "error: it broke\n  what to do: mend it\n"


def test_a_table_in_a_pipe_cuts_no_cell(streams: tuple[io.StringIO, io.StringIO]) -> None:
    long = "word " * 40
    ui.table("title", ("a", "b"), [("x", long.strip())])
    assert long.strip() in streams[0].getvalue()


def test_json_is_json(streams: tuple[io.StringIO, io.StringIO]) -> None:
    ui.emit_json({"b": 1, "a": [None]})
    assert json.loads(streams[0].getvalue()) == {"a": [None], "b": 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (42.4, "42 s"), (185, "3 min 05 s"), (3600, "60 min 00 s")],
)
def test_durations_read_like_a_person_says_them(seconds: float, text: str) -> None:
    assert ui.duration(seconds) == text
