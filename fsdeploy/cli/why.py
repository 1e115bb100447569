# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy why`: why a host stands where it stands."""

from __future__ import annotations

import argparse
import time

from fsdeploy import ui
from fsdeploy.cli.hosts import add_json
from fsdeploy.errors import ExitCode
from fsdeploy.fleet.why import why


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("host", metavar="HOST", help="its name in the inventory")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Run it."""
    found = why(args.host)
    if args.json:
        ui.emit_json(found.as_dict())
        return int(ExitCode.OK)
    ui.say(f"{found.host}: {found.sentence}")
    ui.table(
        "",
        ("when", "state", "reason"),
        [
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at)),
                str(event.state),
                event.reason,
            )
            for event in found.story
        ],
    )
    return int(ExitCode.OK)
