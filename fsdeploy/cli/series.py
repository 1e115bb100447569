# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy series: work on a patch series."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import CheckFailed, ExitCode, FsdeployError
from fsdeploy.kernel import check, series, source, target


def configure(parser: argparse.ArgumentParser) -> None:
    """Sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lint = actions.add_parser("lint", help="headers, order, names, white space; applies nothing")
    checks = actions.add_parser("check", help="each prefix of the series applies, and compiles")
    apply = actions.add_parser("apply", help="make a git tree to work on the series in")
    export = actions.add_parser("export", help="write the series anew from a git tree")
    for action in (checks, apply, export):
        action.add_argument("--target", required=True, metavar="TARGET")
    lint.add_argument("--target", metavar="TARGET", help="default: all of them")
    for action in (checks, apply):
        action.add_argument(
            "--source", default="", metavar="PATH", help="as in `fsdeploy build-kernel`"
        )
    checks.add_argument(
        "--compile",
        metavar="FRAGMENT",
        nargs="?",
        const="lab",
        default="",
        help="compile each prefix with this configuration (default lab)",
    )
    checks.add_argument("--jobs", "-j", type=int, default=0, metavar="N")
    apply.add_argument("--into", type=Path, required=True, metavar="DIR")
    export.add_argument("tree", type=Path, help="git tree, as `series apply` makes one")
    export.add_argument(
        "--range", default="base..HEAD", metavar="BASE..HEAD", help="default base..HEAD"
    )
    export.add_argument(
        "--output", type=Path, metavar="DIR", help="default: the series in this project"
    )


def main(args: argparse.Namespace) -> int:
    """Dispatch."""
    if args.action == "lint":
        return _lint(args.target)
    wanted = target.load(args.target)
    present = series.read(wanted.patches)
    if args.action == "export":
        if ".." not in args.range:
            raise FsdeployError(f"--range {args.range} is not BASE..HEAD")
        exported = series.export(args.tree, args.range, present)
        folder = args.output or wanted.patches
        series.write(folder, present, exported)
        for patch in exported:
            ui.say(str(folder / patch.name))
        return int(ExitCode.OK)
    found = source.resolve(wanted, args.source)
    if args.action == "apply":
        with ui.step(f"Make a git tree of {found.name} and {len(present.patches)} patches"):
            series.into_git(present.patches, found.tree, args.into)
        ui.say(f"{args.into}: the tag base is {found.name}, a commit for each patch follows")
        return int(ExitCode.OK)
    check.check_series(wanted, found, present, args.compile, args.jobs)
    how = f"applies and compiles ({args.compile})" if args.compile else "applies"
    ui.say(f"{wanted.name}: each of {len(present.patches)} patches {how} on {found.name}")
    return int(ExitCode.OK)


def _lint(name: str | None) -> int:
    problems = 0
    for wanted in (target.load(name),) if name else target.load_all():
        present = series.read(wanted.patches)
        found = series.lint(present)
        problems += len(found)
        for line in found:
            ui.say(f"{wanted.name}: {line}")
        if not found:
            ui.say(f"{wanted.name}: {len(present.patches)} patches, nothing to complain about")
    if problems:
        raise CheckFailed(f"{problems} problems in the series")
    return int(ExitCode.OK)
