# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy demo`: the whole way on a lab host, with a table of what happened."""

from __future__ import annotations

import argparse

from fsdeploy import demo, ui
from fsdeploy.errors import ExitCode
from fsdeploy.kernel import target


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--target", choices=target.names(), default="lts61")
    parser.add_argument("--source", default="", help="kernel source (el6: the CentOS source RPM)")
    parser.add_argument("--keep", action="store_true", help="leave the lab host running")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    scenes = demo.demo(demo.DemoRequest(args.target, args.source, args.keep))
    ui.table(
        f"What happened ({ui.duration(sum(scene.seconds for scene in scenes))} in all)",
        ("step", "seen", "time"),
        [(scene.title, scene.outcome, ui.duration(scene.seconds)) for scene in scenes],
    )
    return int(ExitCode.OK)
