# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy rollback`: send hosts back."""

from __future__ import annotations

import argparse

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json, positive_span
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.rollback import Level, RollbackReport, RollbackRequest, rollback_kernel
from fsdeploy.fleet.unserve import rollback_services
from fsdeploy.fleet.untune import rollback_tuning


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_hosts(parser)
    parser.add_argument(
        "--level",
        choices=[str(level) for level in Level],
        required=True,
        help="service: restart services without libfsocket; module: its parameters as before, no"
        " loading at boot, unloaded where it is not in use; tuning: the values saved before the"
        " first change; kernel: boot the kernel before and make it the default",
    )
    parser.add_argument(
        "--to", default="", metavar="RELEASE", help="the kernel to go back to (default: the last)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--plain-ssh", action="store_true", help="a shell on the host only, no Python"
    )
    parser.add_argument(
        "--boot-timeout",
        type=positive_span,
        default=600.0,
        metavar="TIME",
        help="how long a host may take to come back (default 600 s)",
    )
    add_json(parser)


def show(report: RollbackReport) -> None:
    """The report as a table, one line a host."""
    ui.table(
        "rollback, dry run" if report.dry_run else "rollback",
        ("host", "state", "kernel", "reason"),
        [
            (host.host, "ok" if host.ok else "failed", host.kernel, host.reason)
            for host in report.hosts
        ],
    )
    ui.note(f"log: {report.log}")


def main(args: argparse.Namespace) -> int:
    """Run it."""
    request = RollbackRequest(
        inventory=args.inventory,
        to=args.to,
        limit=tuple(args.limit),
        dry_run=args.dry_run,
        boot_timeout=args.boot_timeout,
        plain_ssh=args.plain_ssh,
    )
    level = Level(args.level)
    if level is not Level.KERNEL and args.to:
        raise FsdeployError(f"--to names a kernel, and --level {level} leaves kernels alone")
    if level is Level.TUNING:
        report = rollback_tuning(request)
    elif level is not Level.KERNEL:
        report = rollback_services(request, level)
    else:
        report = rollback_kernel(request)
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report)
    return int(report.exit_code)
