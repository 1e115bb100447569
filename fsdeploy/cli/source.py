# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy source: the cache of kernel sources."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import ExitCode
from fsdeploy.kernel import identify, source, target


def configure(parser: argparse.ArgumentParser) -> None:
    """Sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="unpack a source RPM, tarball or tree into the cache")
    add.add_argument("path", type=Path)
    add.add_argument("--target", metavar="TARGET", help="refuse what is not for this target")
    identify = actions.add_parser("identify", help="say what a path holds and what it is good for")
    identify.add_argument("path", type=Path)
    listing = actions.add_parser("list", help="the sources in the cache")
    remove = actions.add_parser("remove", help="take a source out of the cache")
    remove.add_argument("name", help="release or hash, as `source list` shows it")
    for action in (add, identify, listing):
        action.add_argument("--json", action="store_true", help="machine readable")


def main(args: argparse.Namespace) -> int:
    """Dispatch."""
    if args.action == "list":
        return _list(args.json)
    if args.action == "remove":
        for gone in source.remove(args.name):
            ui.say(f"removed {gone.name}")
        return int(ExitCode.OK)
    if args.action == "identify":
        found = identify.identify(args.path)
        facts = _facts(found.version, found.release, found.name, found.kind, found.digest)
    else:
        # A source no series is for has no place in the cache.
        wanted = target.load(args.target) if args.target else None
        if wanted is None:
            found = identify.identify(args.path)
            identify.require_any_fit(found)
        added = source.add(args.path, wanted)
        facts = _facts(added.version, added.release, added.name, added.kind, added.digest)
        facts["directory"] = str(added.directory)
    if args.json:
        ui.emit_json(facts)
    else:
        targets = ", ".join(facts["targets"]) or "no target of ours"
        ui.say(f"{facts['name']} ({facts['kind']}) for {targets}")
    return int(ExitCode.OK)


def _facts(version: str, release: str, name: str, kind: str, digest: str) -> dict[str, Any]:
    fitting = [one.name for one in target.load_all() if one.accepts(version, release)]
    return {
        "version": version,
        "release": release,
        "name": name,
        "kind": kind,
        "sha256": digest,
        "targets": fitting,
    }


def _list(as_json: bool) -> int:
    rows = [
        {
            **_facts(kept.version, kept.release, kept.name, kept.kind, kept.digest),
            "directory": str(kept.directory),
            "origin": kept.origin,
        }
        for kept in source.cached()
    ]
    if as_json:
        ui.emit_json(rows)
    elif rows:
        ui.table(
            "",
            ("source", "kind", "for", "hash", "from"),
            [
                (row["name"], row["kind"], ", ".join(row["targets"]) or "-",
                 row["sha256"][:16], row["origin"])
                for row in rows
            ],
        )  # fmt: skip
    else:
        ui.say("no source in the cache; `fsdeploy source add PATH` puts one there")
    return int(ExitCode.OK)
