# SPDX-License-Identifier: GPL-2.0-only
"""The only place that knows a terminal.

Results go to stdout (`say`, `table`, `emit_json`), everything about the way there to stderr:
nested steps with their time, warnings, progress. On a terminal progress is a live line; elsewhere
it is a plain line now and then, so that a log stays readable.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fsdeploy.errors import FsdeployError

_PLAIN_PROGRESS_EVERY = 30.0  # seconds between progress lines where there is no terminal

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
_depth = 0
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Without steps and notes; results, warnings and errors stay."""
    global _quiet
    _quiet = quiet


def duration(seconds: float) -> str:
    """Seconds in a person's form: `0.4 s`, `42 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def say(text: str) -> None:
    """A result line, to stdout."""
    _out.print(escape(text))


def note(text: str) -> None:
    """A line about the way there, to stderr."""
    if not _quiet:
        _err.print("  " * _depth + escape(text))


def warn(text: str) -> None:
    """Something the user should know although the command goes on."""
    _err.print("  " * _depth + f"[yellow]warning:[/yellow] {escape(text)}")


def error(problem: FsdeployError) -> None:
    """What, where, and what to do."""
    _err.print(f"[red]error:[/red] {escape(problem.message)}")
    if problem.hint:
        _err.print(f"  [bold]what to do:[/bold] {escape(problem.hint)}")
    if problem.log:
        _err.print(f"  log: {escape(str(problem.log))}")


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """A nested step: its title when it begins, its time when it ends."""
    global _depth
    note(f"{title} …")
    began = time.monotonic()
    _depth += 1
    try:
        yield
    except BaseException:
        _depth -= 1
        note(f"{title}: stopped after {duration(time.monotonic() - began)}")
        raise
    _depth -= 1
    note(f"{title}: {duration(time.monotonic() - began)}")


class Meter:
    """Progress of something with a known or guessed total; see `progress`."""

    def __init__(self, title: str, total: float | None) -> None:
        self._title = title
        self._total = total
        self._done = 0.0
        self._began = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if _err.is_terminal and not _quiet:
            self._bar = Progress(
                TextColumn("  " * _depth + "{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=_err,
                transient=True,
            )
            self._task = self._bar.add_task(escape(title), total=total)
            self._bar.start()

    def advance(self, amount: float = 1.0) -> None:
        """`amount` more is done."""
        self.reach(self._done + amount)

    def reach(self, done: float) -> None:
        """`done` of the total is done."""
        self._done = done
        if self._bar:
            # A guessed total may be passed: the bar then stands at its end instead of lying.
            shown = min(done, self._total) if self._total else done
            self._bar.update(self._task, completed=shown)
            return
        now = time.monotonic()
        if now - self._printed < _PLAIN_PROGRESS_EVERY:
            return
        self._printed = now
        if self._total and 0 < done <= self._total:
            left = (now - self._began) * (self._total - done) / done
            share = 100 * done / self._total
            note(f"{self._title}: {share:.0f} %, about {duration(left)} left")
        else:
            note(f"{self._title}: {duration(now - self._began)}")

    def close(self) -> None:
        """Take the live line away."""
        if self._bar:
            self._bar.stop()


@contextlib.contextmanager
def progress(title: str, total: float | None = None) -> Iterator[Meter]:
    """Progress of a long step; `total` in the caller's own units, None when unknown."""
    meter = Meter(title, total)
    try:
        yield meter
    finally:
        meter.close()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, to stdout. Cells are never cut: a plain pipe gets every word."""
    grid = Table(title=escape(title) or None, title_justify="left", show_lines=False)
    for column in columns:
        grid.add_column(escape(column), overflow="fold", no_wrap=not _out.is_terminal)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    if _out.is_terminal:
        _out.print(grid)
    else:
        # Outside a terminal rich would fold at 80 columns.
        Console(file=_out.file, width=400, highlight=False).print(grid)


def emit_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """The `--json` form of a result, to stdout."""
    _out.file.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
    _out.file.flush()


def write_raw(text: str) -> None:
    """Text as it is, to stdout: a patch, the console of a host."""
    _out.file.write(text)
    _out.file.flush()
