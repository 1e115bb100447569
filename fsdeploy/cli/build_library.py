# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy build-library."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import ExitCode
from fsdeploy.kernel import library


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("--output", type=Path, metavar="DIR", help="copy the package there")
    parser.add_argument("--json", action="store_true", help="print the paths as JSON")


def main(args: argparse.Namespace) -> int:
    """Build and say where the package is."""
    built = library.build_library()
    rpm = built.rpm
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        rpm = Path(shutil.copy2(rpm, args.output))
    if args.json:
        ui.emit_json(
            {"directory": str(built.directory), "rpm": str(rpm), "manifest": str(built.manifest)}
        )
    else:
        ui.say(str(rpm))
    return int(ExitCode.OK)
