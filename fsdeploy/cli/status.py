# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy status`: where each host stands."""

from __future__ import annotations

import argparse
import time

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json
from fsdeploy.fleet.status import HostStatus, StatusReport, fleet_status
from fsdeploy.fleet.why import Progress

# With more hosts only those are listed that somebody may have to look at; with more than that of
# them, too, the reasons are.
_LISTED = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_hosts(parser, required=False, note="default: every host in the journal")
    parser.add_argument("--live", action="store_true", help="also ask the hosts what they run")
    add_json(parser)


def _wave_rows(progress: Progress) -> list[tuple[str, str, str, str]]:
    rows = []
    for wave in progress.waves:
        counts = progress.counts.get(wave.number, {})
        states = ", ".join(f"{many} {state}" for state, many in sorted(counts.items()))
        left = progress.soak_left(wave)
        soak = f"ends in {ui.duration(left)}" if left else ui.duration(wave.soak)
        rows.append((str(wave.number), wave.name, states, soak if wave.soak else ""))
    return rows


def _listed(hosts: tuple[HostStatus, ...], live: bool) -> list[HostStatus]:
    if live or len(hosts) <= _LISTED:
        return list(hosts)
    return [host for host in hosts if not host.is_quiet]


def show(report: StatusReport, *, live: bool) -> None:
    """The waves of the last rollout, then a line a host."""
    if report.progress:
        rollout = report.progress.rollout
        ui.say(f"rollout {rollout.number} of {rollout.release}, failure budget {rollout.budget}")
        ui.table(
            "",
            ("wave", "name", "hosts", "soak"),
            _wave_rows(report.progress),
        )
    if not report.hosts:
        ui.say("No host was in a rollout yet; with --inventory FILE and --live hosts are asked.")
        return
    shown = _listed(report.hosts, live)
    if len(shown) > _LISTED and not live:
        _show_reasons(shown)
    else:
        _show_hosts(shown, live)
    if len(shown) < len(report.hosts):
        ui.say(
            f"{len(report.hosts) - len(shown)} hosts that are promoted, or planned and not begun,"
            " are not listed; --json has them all"
        )
    if report.progress:
        ui.say(report.progress.sentence)


def _show_reasons(hosts: list[HostStatus]) -> None:
    """Hosts of one state and reason in a line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for host in hosts:
        alike.setdefault((host.state, host.release, host.reason), []).append(host.host)
    order = sorted(alike, key=lambda key: -len(alike[key]))
    ui.table(
        "",
        ("hosts", "state", "release", "reason", "the first"),
        [(str(len(alike[key])), *key, alike[key][0]) for key in order[:_LISTED]],
    )
    if len(order) > _LISTED:
        ui.say(f"and {len(order) - _LISTED} other reasons")
    ui.say("--json has each host, fsdeploy why HOST tells of one")


def _show_hosts(hosts: list[HostStatus], live: bool) -> None:
    """A line a host."""
    rows = []
    for host in hosts:
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


def main(args: argparse.Namespace) -> int:
    """Run it."""
    report = fleet_status(inventory=args.inventory, limit=tuple(args.limit), live=args.live)
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report, live=args.live)
    return int(report.exit_code)
