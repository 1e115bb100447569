# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy tune`: interrupts, queues, coalescing, ports and limits of hosts."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import tuning
from fsdeploy.tuning.plan import parse_choice
from fsdeploy.tuning.settings import Outcome
from fsdeploy.tuning.snapshot import load_snapshot


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--show", action="store_true", help="the plan, beside what hosts have now")
    what.add_argument("--diff", action="store_true", help="only what a host has otherwise")
    what.add_argument("--collect", action="store_true", help="write a snapshot of each host")
    what.add_argument("--apply", action="store_true", help="apply the plan, for good")
    what.add_argument(
        "--restore", action="store_true", help="put back what was there before the first --apply"
    )
    add_hosts(parser, required=False)
    parser.add_argument(
        "--snapshot",
        type=Path,
        metavar="FILE",
        help="for --show and --diff: plan from a file of --collect, without a host",
    )
    parser.add_argument(
        "--cpus",
        default="all",
        metavar="all|local|remote|one|CPULIST",
        help="CPUs for a card's queues: its NUMA node's first, then the others (all, the default);"
        " only its node's; only other nodes'; a single one; or those of a list like 0-3,8",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="for --collect: where HOST.json goes (default: here)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="for --apply and --restore: say what would be done"
    )
    add_json(parser)


def _word(report: tuning.TuneReport, outcome: Outcome) -> str:
    return "to be changed" if report.prospect and outcome is Outcome.CHANGED else str(outcome)


def _show(report: tuning.TuneReport, title: str, *, everything: bool) -> None:
    """A table a host with a line a setting, then a table with a line a host.

    Without `everything`: of the settings only those that changed, or should have.
    """
    for host in report.hosts:
        results = [
            result
            for result in host.items
            if everything or result.outcome in (Outcome.CHANGED, Outcome.CANNOT)
        ]
        if results:
            ui.table(
                f"{host.host}: {title}",
                ("setting", "target", "before", "wanted", "outcome", "why"),
                [
                    (
                        str(result.setting.kind),
                        result.setting.target,
                        result.before,
                        result.setting.value,
                        _word(report, result.outcome),
                        result.reason or result.setting.why,
                    )
                    for result in results
                ],
            )
        for note in host.notes:
            ui.say(f"{host.host}: {note}")
    _summary(report, title)


def _diff(report: tuning.TuneReport, title: str) -> None:
    """What a host has and what it would get, in two lines a setting."""
    for host in report.hosts:
        for result in host.items:
            if result.outcome is Outcome.CHANGED:
                ui.say(f"{host.host} {result.setting.kind} {result.setting.target}")
                ui.say(f"  - {result.before}")
                ui.say(f"  + {result.setting.value}")
    _summary(report, title)


def _summary(report: tuning.TuneReport, title: str) -> None:
    rows = []
    for host in report.hosts:
        state = "ok" if host.ok else ("failed" if host.reached else "unreachable")
        counts = ", ".join(
            f"{host.count(outcome)} {_word(report, outcome)}"
            for outcome in Outcome
            if host.count(outcome)
        )
        rows.append((host.host, state, host.reason or counts or "nothing to do"))
    ui.table(title, ("host", "state", "settings"), rows)
    for command in report.commands:
        ui.say(command)
    if report.log:
        ui.note(f"log: {report.log}")


def _collect(args: argparse.Namespace) -> int:
    began = time.monotonic()
    found, log = tuning.collect(args.inventory, args.limit)
    args.output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for host, collected in found.items():
        reason = collected.reason
        if collected.document:
            path = args.output / f"{host}.json"
            text = json.dumps(collected.document, indent=1, sort_keys=True) + "\n"
            path.write_text(text, encoding="utf-8")
            reason = str(path)
        outcomes.append(
            tuning.TuneOutcome(host, bool(collected.document), reason, collected.reached)
        )
    return _end(
        args, tuning.TuneReport(tuple(outcomes), time.monotonic() - began, log), "snapshots"
    )


def _end(args: argparse.Namespace, report: tuning.TuneReport, title: str) -> int:
    if args.json:
        ui.emit_json(report.as_dict())
    elif args.diff:
        _diff(report, title)
    else:
        _show(report, title, everything=args.show)
    return int(report.exit_code)


def _check(args: argparse.Namespace) -> None:
    changing = args.apply or args.restore
    for option, given, fits in (
        ("--snapshot", args.snapshot is not None, args.show or args.diff),
        ("--dry-run", args.dry_run, changing),
        ("--output", args.output != Path(), args.collect),
        ("--cpus", args.cpus != "all", args.show or args.diff or args.apply),
    ):
        if given and not fits:
            raise FsdeployError(f"{option} says nothing to this part of tune")
    if (args.inventory is None) == (args.snapshot is None):
        raise FsdeployError(
            "tune needs hosts", hint="--inventory FILE; --snapshot FILE for --show and --diff"
        )


def main(args: argparse.Namespace) -> int:
    """Run it."""
    _check(args)
    choice = parse_choice(args.cpus)
    if args.collect:
        return _collect(args)
    if args.snapshot:
        try:
            text = args.snapshot.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise FsdeployError(f"{args.snapshot} is not a text file") from None
        snapshot = load_snapshot(text, str(args.snapshot))
        outcome = tuning.show_snapshot(snapshot, args.snapshot.stem, choice)
        return _end(args, tuning.TuneReport((outcome,), 0.0, prospect=True), "plan")
    request = tuning.TuneRequest(args.inventory, choice, tuple(args.limit), args.dry_run)
    if args.apply:
        return _end(args, tuning.apply(request), "dry run" if args.dry_run else "tuned")
    if args.restore:
        return _end(args, tuning.restore(request), "dry run" if args.dry_run else "restored")
    return _end(args, tuning.show(request), "plan")
