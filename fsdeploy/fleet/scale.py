# SPDX-License-Identifier: GPL-2.0-only
"""What a large fleet takes of the control machine: `python -m fsdeploy.fleet.scale`.

The planner, the journal and `status` with that many hosts, none of which is asked. Each
step runs in a folder that goes away; `status` is the real command in a process of its own.

`--endpoints N` is the other half: one wave over SSH to that many servers (scale_ssh.py).
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fsdeploy import run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import scale_ssh
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Candidate, RolloutPlan, plan_rollout
from fsdeploy.fleet.states import STEPS, State

Result = TypeVar("Result")

_CLASSES = 8
_RELEASE = "2.6.32-431.el6.fs1.0123abcd.x86_64"
_PREVIOUS = "2.6.32-431.el6.x86_64"


@dataclass
class _Notes:
    """What was seen: (what, wall time, processor time), or (what, how much, nothing)."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def time(self, what: str, do: Callable[[], Result]) -> Result:
        began, used = time.monotonic(), _processor_seconds()
        result = do()
        wall, used = time.monotonic() - began, _processor_seconds() - used
        self.rows.append((what, f"{wall:.2f} s", f"{used:.2f} s"))
        return result

    def size(self, what: str, mib: float) -> None:
        self.rows.append((what, f"{mib:.1f} MiB", ""))


def _processor_seconds() -> float:
    """Of this process and of the commands it ran."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(item) for item in who]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _walk(journal: Journal, plan: RolloutPlan) -> None:
    """Every host through every state, a transaction for each step of a wave."""
    for wave in plan.waves:
        journal.mark_wave(1, wave.number, "began", time.time())
        for state, _ in STEPS:
            with journal.together():
                for host in wave.names:
                    journal.move(1, host, state, facts={"previous": _PREVIOUS, "boot_id": host})
        journal.mark_wave(1, wave.number, "ended", time.time())


def _peak_mib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def measure(count: int, folder: Path) -> list[tuple[str, str, str]]:
    """What was seen with that many hosts."""
    notes = _Notes()
    inventory = folder / "hosts.yml"
    names = [f"web{number:05d}.example.com" for number in range(1, count + 1)]
    lines = "".join(f"    {name}:\n      ansible_user: root\n" for name in names)
    inventory.write_text(f"fleet:\n  hosts:\n{lines}", encoding="utf-8")
    notes.time("read the inventory", lambda: load_inventory(inventory))
    hosts = [Candidate(name, f"class {place % _CLASSES}") for place, name in enumerate(names)]
    plan = notes.time("plan the waves", lambda: plan_rollout(_RELEASE, hosts))
    state = folder / "fsdeploy" / "journal.sqlite3"
    with Journal(state) as journal:
        notes.time(
            "record the plan", lambda: journal.begin(plan, inventory=str(inventory), request={})
        )
        notes.time(f"{len(STEPS)} steps of every host", lambda: _walk(journal, plan))
        promoted = sum(wave[State.PROMOTED] for wave in journal.counts(1).values())
    if promoted != count:
        raise FsdeployError(f"{promoted} of {count} hosts came to their end")
    notes.size("size of the journal", state.stat().st_size / 2**20)
    notes.size("memory at most, this process", _peak_mib(resource.RUSAGE_SELF))
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    for words in (["status"], ["status", "--json"], ["why", names[-1]]):
        argv = [sys.executable, "-m", "fsdeploy", *words]
        command = functools.partial(run.run, argv, env=environment)
        notes.time(f"fsdeploy {' '.join(words)}", command)
    notes.size("memory at most, commands", _peak_mib(resource.RUSAGE_CHILDREN))
    return notes.rows


def main() -> int:
    """Measure and say."""
    parser = argparse.ArgumentParser(prog="python -m fsdeploy.fleet.scale", description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000, metavar="N")
    parser.add_argument(
        "--endpoints",
        type=int,
        metavar="N",
        help="one wave over SSH to N servers of this machine instead; for root",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsdeploy-scale-") as name:
        if args.endpoints:
            found = scale_ssh.measure(args.endpoints, Path(name))
            ui.table(f"{args.endpoints} hosts", ("what", "wall", "a host", "remark"), found)
            return 0
        rows = measure(args.hosts, Path(name))
    ui.table(f"{args.hosts} hosts", ("what", "wall", "processor"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
