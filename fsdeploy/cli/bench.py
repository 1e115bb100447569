# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy bench: what kernels make of short connections."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.bench import drive, plan, report
from fsdeploy.errors import CheckFailed, ExitCode, FsdeployError
from fsdeploy.kernel import target


def configure(parser: argparse.ArgumentParser) -> None:
    """Sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    connections = actions.add_parser(
        "connections",
        help="compare kernels by short TCP connections in quick guests",
        description="Compare kernels by short TCP connections on the loopback device of quick "
        "guests. docs/benchmark.md tells how to read the figures.",
    )
    connections.add_argument(
        "--target", required=True, metavar="TARGET", help=f"one of {', '.join(target.names())}"
    )
    connections.add_argument(
        "--kernels",
        default="stock,patched",
        metavar="NAME,…",
        help="stock or patched, alone or with features: "
        + "; ".join(f"{name}: {', '.join(plan.offers(name))}" for name in target.names())
        + " (default stock,patched)",
    )
    connections.add_argument(
        "--cpus", default="1,2,4", metavar="N,…", help="of the guests (default 1,2,4)"
    )
    connections.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="repetitions (default 5)"
    )
    connections.add_argument(
        "--connections", type=int, default=10000, metavar="N", help="in a guest (default 10000)"
    )
    connections.add_argument(
        "--mode",
        choices=tuple(plan.MODES),
        default="server",
        help="; ".join(f"{name}: {text}" for name, text in plan.MODES.items()),
    )
    connections.add_argument(
        "--rps", action="store_true", help="spread the packets of every guest over all its CPUs"
    )
    connections.add_argument(
        "--measures",
        default=",".join(plan.MEASURES),
        metavar="NAME,…",
        help="; ".join(f"{name}: {text}" for name, text in plan.MEASURES.items())
        + " (default all)",
    )
    connections.add_argument(
        "--output", type=Path, metavar="FILE.json", help="write everything that was seen there"
    )


def main(args: argparse.Namespace) -> int:
    """Measure and show."""
    request = plan.Request(
        target=target.load(args.target).name,
        configurations=tuple(
            plan.configuration(args.target, name) for name in args.kernels.split(",")
        ),
        cpus=_counts(args.cpus),
        repeat=args.repeat,
        connections=args.connections,
        mode=args.mode,
        rps=args.rps,
        measures=_measures(args.measures),
    )
    record = drive.bench(request, args.output)
    for table in report.tables(record):
        ui.table(table.title, table.columns, table.rows)
    ui.say(report.conditions(record))
    if args.output:
        ui.say(f"everything that was seen: {args.output}")
    _, problems = report.read(record)
    if problems:
        raise CheckFailed("\n  ".join(("left out of the figures:", *problems)))
    return int(ExitCode.OK)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as problem:
        raise FsdeployError(f"--cpus {text}: not numbers with commas between") from problem


def _measures(text: str) -> tuple[str, ...]:
    words = text.split(",")
    unknown = [word for word in words if word not in plan.MEASURES]
    if unknown:
        raise FsdeployError(
            f"there is no measure {unknown[0]}", hint=f"known: {', '.join(plan.MEASURES)}"
        )
    return tuple(name for name in plan.MEASURES if name in words)
