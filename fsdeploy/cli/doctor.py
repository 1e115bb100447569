# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy doctor`: is this control machine ready? Changes nothing."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fsdeploy import paths, run, ui
from fsdeploy.errors import ExitCode

_GIB = 1 << 30

# What each part of the work needs: tools and free space in the cache, GiB.
_PARTS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    (
        "build kernels",
        (
            "gcc",
            "ld",
            "make",
            "patch",
            "perl",
            "bc",
            "bison",
            "flex",
            "ccache",
            "cpio",
            "bzip2",
            "xz",
            "rpmbuild",
            "rpm2cpio",
        ),
        8,
    ),
    ("publish packages", ("createrepo_c", "gpg", "gpg-agent", "rpm", "rpmsign"), 0),
    ("reach hosts", ("ssh", "ssh-keygen"), 0),
    ("run the lab", ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "sfdisk"), 4),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what for, whether it is all right, and a sentence."""

    part: str
    ok: bool
    text: str
    missing: tuple[str, ...] = ()  # tools


def examine() -> list[Finding]:
    """Look at tools and free space; nothing is made or changed."""
    cache = paths.cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    findings = []
    for part, tools, space in _PARTS:
        missing = [tool for tool in tools if run.find(tool) is None]
        if missing:
            packages = sorted({run.PACKAGES.get(tool, (tool, tool))[0] for tool in missing})
            findings.append(
                Finding(
                    part,
                    False,
                    f"missing {', '.join(missing)}: apt-get install {' '.join(packages)}",
                    tuple(missing),
                )
            )
        else:
            findings.append(Finding(part, True, f"all {len(tools)} tools are there"))
        if space:
            enough = free >= space * _GIB
            findings.append(
                Finding(part, enough, f"{free / _GIB:.1f} GiB free in {existing}, {space} wanted")
            )
    return findings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def _rows(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    return [(f.part, "yes" if f.ok else "no", f.text) for f in findings]


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    findings = examine()
    if args.json:
        ui.emit_json([asdict(finding) for finding in findings])
    else:
        ui.table("", ("for", "ready", "what was found"), _rows(findings))
    return int(ExitCode.OK if all(f.ok for f in findings) else ExitCode.CHECK_FAILED)
