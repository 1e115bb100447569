# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy rollout`: bring a kernel to hosts."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.plan import STEPS
from fsdeploy.fleet.rollout import RolloutReport, RolloutRequest, rollout


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--inventory", "-i", type=Path, required=True, metavar="FILE")
    parser.add_argument("--kernel", type=Path, required=True, metavar="RPM")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="only these hosts or patterns"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look at the hosts, say what would be done"
    )
    parser.add_argument(
        "--trial-timeout",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="how long a host may take to come back from a boot (default 600 s)",
    )
    parser.add_argument(
        "--trial-argument",
        action="append",
        default=[],
        metavar="ARG",
        help="a kernel argument for the trial boot only; may be repeated",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a rollout that was cut off"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def show(report: RolloutReport) -> None:
    """The report as a table, one line a host."""
    if report.dry_run:
        ui.say("What a rollout would do on each host:")
        for number, (state, what) in enumerate(STEPS, 1):
            ui.say(f"  {number}. {what} ({state})")
    title = f"{'dry run' if report.dry_run else 'rollout'} of {report.release}"
    ui.table(
        title,
        ("host", "state", "kernel", "reason"),
        [(host.host, str(host.state), host.kernel, host.reason) for host in report.hosts],
    )
    for command in report.commands:
        ui.say(command)
    if report.log:
        ui.note(f"log: {report.log}")


def main(args: argparse.Namespace) -> int:
    """Run it."""
    if any(len(word.split()) != 1 for word in args.trial_argument):
        raise FsdeployError(
            "a --trial-argument must be one word of a kernel command line",
            hint="repeat the option for several",
        )
    report = rollout(
        RolloutRequest(
            inventory=args.inventory,
            kernel=args.kernel,
            limit=tuple(args.limit),
            dry_run=args.dry_run,
            trial_timeout=args.trial_timeout,
            trial_arguments=tuple(args.trial_argument),
            resume=args.resume,
        )
    )
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report)
    return int(report.exit_code)
