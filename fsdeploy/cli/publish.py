# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy publish`: sign packages and put them into a yum repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.cli.hosts import add_json
from fsdeploy.errors import ExitCode
from fsdeploy.repository.publish import PublishReport, PublishRequest, publish


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("packages", nargs="+", type=Path, metavar="RPM", help="what to publish")
    parser.add_argument(
        "--key",
        required=True,
        metavar="KEYID",
        help="the key to sign with, as gpg knows it: RSA of 2048 to 4096 bits, for signing",
    )
    parser.add_argument(
        "--gnupg-home", type=Path, metavar="DIR", help="where gpg has the key (default ~/.gnupg)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the repository's folder: a new one, or one that publish made; what is in it stays",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be published, change nothing"
    )
    add_json(parser)


def _show(report: PublishReport) -> None:
    would = "would be published" if report.dry_run else "published"
    rows = [(file, would) for file in report.added]
    rows += [(file, "is there, unchanged") for file in report.kept]
    ui.table("", ("package", "state"), rows)
    ui.say(f"signed with {report.fingerprint}")
    if report.dry_run:
        return
    ui.say(f"public key: {report.public_key}")
    if not report.changed:
        ui.say("nothing changed")


def main(args: argparse.Namespace) -> int:
    """Run it."""
    report = publish(
        PublishRequest(
            packages=tuple(args.packages),
            key=args.key,
            output=args.output,
            gnupg_home=args.gnupg_home,
            dry_run=args.dry_run,
        )
    )
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        _show(report)
    return int(ExitCode.OK)
