# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy build-library."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import ExitCode
from fsdeploy.kernel import library, manifest


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="copy the package and its manifest there"
    )
    parser.add_argument("--json", action="store_true", help="print the paths as JSON")


def main(args: argparse.Namespace) -> int:
    """Build and say where the package is."""
    built = library.build_library()
    rpm, described = built.rpm, built.manifest
    if args.output:
        rpm, described = manifest.copy_out([rpm], described, args.output)
    if args.json:
        ui.emit_json(
            {"directory": str(built.directory), "rpm": str(rpm), "manifest": str(described)}
        )
    else:
        ui.say(str(rpm))
    return int(ExitCode.OK)
