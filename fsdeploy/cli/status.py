# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy status`: where each host stands."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fsdeploy import ui
from fsdeploy.fleet.status import StatusReport, fleet_status


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--inventory",
        "-i",
        type=Path,
        metavar="FILE",
        help="these hosts (default: every host in the journal)",
    )
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="only these hosts or patterns"
    )
    parser.add_argument("--live", action="store_true", help="also ask the hosts what they run")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def show(report: StatusReport, *, live: bool) -> None:
    """The report as a table, one line a host."""
    rows = []
    for host in report.hosts:
        when = (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(host.changed)) if host.changed else ""
        )
        row = [host.host, host.state, host.release, when, host.reason]
        if live:
            row.insert(3, host.kernel or "no answer")
        rows.append(row)
    columns = ["host", "state", "release", "since", "reason"]
    if live:
        columns.insert(3, "runs")
    ui.table("", columns, rows)
    if report.open_rollout:
        ui.say(
            f"rollout {report.open_rollout} is not at its end: it runs, or goes on with"
            " fsdeploy rollout --resume"
        )


def main(args: argparse.Namespace) -> int:
    """Run it."""
    report = fleet_status(inventory=args.inventory, limit=tuple(args.limit), live=args.live)
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report, live=args.live)
    return int(report.exit_code)
