# SPDX-License-Identifier: GPL-2.0-only
"""Reads KTAP, the kernel's form of test results (Documentation/dev-tools/ktap.rst). Pure.

Stricter than the document where leniency would hide a failure: every level has a version line and
a plan, tests are numbered in order, and whatever is missing, doubled or cut off is a problem of the
report it is in. A line that is no KTAP belongs to the test whose result comes next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_VERSION = re.compile(r"(?:KTAP version 1|TAP version 13|TAP version 14)$")
_PLAN = re.compile(r"1\.\.(\d+)\s*(?:#.*)?$")
_RESULT = re.compile(r"(not )?ok (\d+)(?:\s+(?:-\s*)?(.*))?$")
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b[\s:]*(.*)$", re.IGNORECASE)
_BAIL = re.compile(r"Bail out!(.*)$")


@dataclass(frozen=True)
class Test:
    """One result line with what led to it. `reason` is the text after a directive."""

    __test__ = False  # pytest would collect it by its name

    name: str
    ok: bool
    directive: str = ""
    reason: str = ""
    diagnostics: tuple[str, ...] = ()
    subtests: Report | None = None

    @property
    def skipped(self) -> bool:
        """Did not run: says nothing either way."""
        return self.ok and self.directive == "SKIP"

    @property
    def passed(self) -> bool:
        """Ran and was fine, with everything in it."""
        return self.ok and self.directive != "SKIP" and not self.failures()

    def failures(self, path: str = "") -> tuple[str, ...]:
        """One line for each thing wrong here or below, with its path."""
        here = f"{path}{self.name}"
        below = self.subtests.failures(f"{here}: ") if self.subtests else ()
        if self.ok and self.directive not in {"TIMEOUT", "ERROR"}:
            return below
        if self.directive:
            return (*below, f"{here}: {f'{self.directive.lower()} {self.reason}'.strip()}")
        # A test whose subtests failed is not ok because of them: once is enough.
        return below or (f"{here}: not ok",)


@dataclass(frozen=True)
class Report:
    """The tests of one level. `problems` are what is wrong with the report itself."""

    tests: tuple[Test, ...] = ()
    problems: tuple[str, ...] = ()
    trailing: tuple[str, ...] = ()

    def failures(self, path: str = "") -> tuple[str, ...]:
        """One line for each failed test and each problem, at any depth."""
        lines = [f"{path}{problem}" for problem in self.problems]
        for test in self.tests:
            lines += test.failures(path)
        return tuple(lines)

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Test]]:
        """Every test at any depth with the names that lead to it."""
        for test in self.tests:
            yield (*path, test.name), test
            if test.subtests:
                yield from test.subtests.walk((*path, test.name))


@dataclass
class _Level:
    """A level while it is read."""

    plan: int | None = None
    tests: list[Test] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    subtests: Report | None = None  # closed by the result line that comes next

    def orphan(self) -> None:
        """Keep subtests that no result line followed: they tell how far it came."""
        if self.subtests is not None:
            self.tests.append(Test("(no result line)", ok=False, subtests=self.subtests))
            self.problems.append("subtests without a result line of their own")
            self.subtests = None

    def close(self) -> Report:
        if self.plan is None:
            self.problems.append("no plan")
        elif self.plan != len(self.tests):
            self.problems.append(f"{self.plan} tests were planned, {len(self.tests)} reported")
        self.orphan()
        return Report(tuple(self.tests), tuple(self.problems), tuple(self.pending))


def parse(lines: Iterable[str]) -> Report:
    """The report in lines of text; never raises, a text without KTAP is a report with a problem."""
    levels: list[_Level] = []
    strays: list[str] = []
    ended: Report | None = None
    for raw in lines:
        line = raw.rstrip()
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        depth = indent // 2
        if ended is not None or indent % 2 or depth > len(levels):
            (levels[-1].pending if levels else strays).append(line)
        elif _VERSION.match(text):
            _open(levels, depth)
        elif depth == len(levels):
            (levels[-1].pending if levels else strays).append(line)
        elif bail := _BAIL.match(text):
            levels[depth].problems.append(f"bailed out: {bail[1].strip() or 'no reason given'}")
            ended = _close_to(levels, 0)
        elif plan := _PLAN.match(text):
            _plan(levels[depth], int(plan[1]), above=depth < len(levels) - 1)
        elif result := _RESULT.match(text):
            _close_to(levels, depth + 1)
            _result(levels[depth], bool(result[1]), int(result[2]), result[3] or "")
        else:
            levels[depth].pending.append(line)
    if ended is not None:
        return ended
    if not levels:
        return Report(problems=("no version line",), trailing=tuple(strays))
    for level in levels[1:]:
        level.problems.append("cut off")
    root = _close_to(levels, 0)
    assert root is not None
    return root


def _open(levels: list[_Level], depth: int) -> None:
    if depth < len(levels):
        _close_to(levels, depth + 1)
        levels[depth].problems.append("a second version line")
        return
    if levels:
        levels[-1].orphan()
    levels.append(_Level())


def _plan(level: _Level, count: int, *, above: bool) -> None:
    if level.plan is not None or above:
        level.problems.append("a plan where none belongs")
    else:
        level.plan = count


def _result(level: _Level, negated: bool, number: int, rest: str) -> None:
    directive = _DIRECTIVE.search(rest)
    name = rest[: directive.start()].strip() if directive else rest.strip()
    if number != len(level.tests) + 1:
        level.problems.append(f"test {number} ({name}) where {len(level.tests) + 1} was due")
    test = Test(
        name=name or f"test {number}",
        ok=not negated,
        directive=directive[1].upper() if directive else "",
        reason=directive[2].strip() if directive else "",
        diagnostics=tuple(level.pending),
        subtests=level.subtests,
    )
    if test.ok and not test.skipped and test.subtests and test.subtests.failures():
        level.problems.append(f"{test.name} is ok but something in it is not")
    level.tests.append(test)
    level.pending = []
    level.subtests = None


def _close_to(levels: list[_Level], depth: int) -> Report | None:
    """Close the levels from `depth` down; each becomes the subtests of the one above."""
    closed = None
    while len(levels) > depth:
        closed = levels.pop().close()
        if levels:
            levels[-1].subtests = closed
    return closed
