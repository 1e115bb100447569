# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.lab.ktap import Report, Test, parse


def report(text: str) -> Report:
    return parse(dedent(text).strip("\n").splitlines())


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}( [a-z0-9:/=]{1,5}){0,2}", fullmatch=True)
# Lines a program may print on its way that mean nothing to KTAP.
NOISE = st.lists(st.sampled_from(["# a = 1", "some words", "okay then", "1 .. 2", "# not ok 1"]))


def results(children: st.SearchStrategy[Report] | None) -> st.SearchStrategy[Test]:
    def build(name: str, ok: bool, skip: bool, noise: list[str], subtests: Report | None) -> Test:
        good = subtests is None or not subtests.failures()
        directive = "SKIP" if skip and ok and subtests is None else ""
        return Test(
            name=name,
            ok=ok and good,
            directive=directive,
            reason="no such thing" if directive else "",
            diagnostics=tuple(noise),
            subtests=subtests,
        )

    return st.builds(
        build,
        NAMES,
        st.booleans(),
        st.booleans(),
        NOISE,
        st.none() if children is None else st.none() | children,
    )


def reports(children: st.SearchStrategy[Report] | None) -> st.SearchStrategy[Report]:
    return st.builds(lambda found: Report(tuple(found)), st.lists(results(children), max_size=4))


REPORTS = reports(reports(reports(None)))


def written(found: Report, depth: int = 0) -> list[str]:
    """The lines that a report is read from."""
    pad = "  " * depth
    lines = [f"{pad}KTAP version 1", f"{pad}1..{len(found.tests)}"]
    for number, test in enumerate(found.tests, start=1):
        if test.subtests is not None:
            lines += written(test.subtests, depth + 1)
        lines += [pad + line for line in test.diagnostics]
        status = "ok" if test.ok else "not ok"
        directive = f" # {test.directive} {test.reason}" if test.directive else ""
        lines.append(f"{pad}{status} {number} - {test.name}{directive}")
    return lines


def without_indent(found: Report) -> Report:
    """The same with diagnostics as they were before they were indented."""
    return Report(
        tuple(
            Test(
                test.name,
                test.ok,
                test.directive,
                test.reason,
                tuple(line.strip() for line in test.diagnostics),
                without_indent(test.subtests) if test.subtests else None,
            )
            for test in found.tests
        ),
        found.problems,
        found.trailing,
    )


@given(REPORTS)
def test_a_report_is_read_as_it_was_written(found: Report) -> None:
    assert without_indent(parse(written(found))) == found


@given(REPORTS, st.data())
def test_a_report_cut_off_anywhere_is_a_failure(found: Report, data: st.DataObject) -> None:
    lines = written(found)
    kept = data.draw(st.integers(0, len(lines) - 1))
    assert parse(lines[:kept]).failures()


@given(REPORTS, st.data())
def test_a_result_line_lost_anywhere_is_a_failure(found: Report, data: st.DataObject) -> None:
    lines = written(found)
    results = [n for n, line in enumerate(lines) if line.lstrip().startswith(("ok ", "not ok "))]
    if results:
        lost = data.draw(st.sampled_from(results))
        assert parse(lines[:lost] + lines[lost + 1 :]).failures()


@given(st.lists(st.text() | st.sampled_from(["KTAP version 1", "1..2", "ok 1", "  ok 2", "    "])))
def test_no_text_is_too_odd_to_read(lines: list[str]) -> None:
    assert isinstance(parse(lines), Report)


def test_nested_tests_and_what_led_to_them() -> None:
    found = report(
        """
        KTAP version 1
        1..2
          KTAP version 1
          1..2
          # fd = 3
          ok 1 - opens
          ok 2 closes # SKIP no such call
        ok 1 - files
        # last words
        not ok 2 - pipes
        """
    )
    files, pipes = found.tests
    assert files.passed
    assert files.subtests is not None
    opens, closes = files.subtests.tests
    assert opens.passed
    assert opens.diagnostics == ("  # fd = 3",)
    assert closes.skipped
    assert not closes.passed
    assert closes.reason == "no such call"
    assert pipes.diagnostics == ("# last words",)
    assert found.failures() == ("pipes: not ok",)
    assert [path for path, _ in found.walk()] == [
        ("files",),
        ("files", "opens"),
        ("files", "closes"),
        ("pipes",),
    ]


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no version line"),
        ("ok 1 - alone", "no version line"),
        ("KTAP version 1\nok 1 - a", "no plan"),
        ("KTAP version 1\n1..2\nok 1 - a", "2 tests were planned, 1 reported"),
        ("KTAP version 1\n1..1\nok 1 - a\nok 2 - b", "1 tests were planned, 2 reported"),
        ("KTAP version 1\n1..2\nok 1 - a\nok 1 - a", "test 1 (a) where 2 was due"),
        ("KTAP version 1\n1..1\n1..1\nok 1 - a", "a plan where none belongs"),
        ("KTAP version 1\n1..1\nKTAP version 1\nok 1 - a", "a second version line"),
        ("KTAP version 1\n1..2\nok 1 - a\nBail out! no disk", "bailed out: no disk"),
        ("KTAP version 1\n1..1\nnot ok 1 - a", "a: not ok"),
        ("KTAP version 1\n1..1\nnot ok 1 - a # TIMEOUT 30 s", "a: timeout 30 s"),
        ("KTAP version 1\n1..1\nok 1 - a # TIMEOUT 30 s", "a: timeout 30 s"),
        ("KTAP version 1\n1..1\nnot ok 1 - a # SKIP never ran", "a: skip never ran"),
        (
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 - b\nok 1 - a",
            "a: b: not ok",
        ),
        (
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 - b\nok 1 - a",
            "a is ok but something in it is not",
        ),
        (
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 - b\nnot ok 1 - a # TIMEOUT",
            "a: 2 tests were planned, 1 reported",
        ),
        ("KTAP version 1\n1..0\n  KTAP version 1\n  1..1\n  ok 1 - b", "cut off"),
    ],
)
def test_what_is_wrong_is_named(text: str, failure: str) -> None:
    assert any(failure in line for line in parse(text.splitlines()).failures())


def test_a_program_cannot_answer_for_the_level_above() -> None:
    # Everything a program prints is indented by whoever runs it.
    found = report(
        """
        KTAP version 1
        1..1
          ok 7 - not my place
        not ok 1 - program
        """
    )
    assert [test.name for test in found.tests] == ["program"]
    assert found.failures() == ("program: not ok",)
