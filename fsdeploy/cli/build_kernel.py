# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy build-kernel."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import ExitCode
from fsdeploy.kernel import build, manifest, target


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument(
        "--target", required=True, metavar="TARGET", help=f"one of {', '.join(target.names())}"
    )
    parser.add_argument(
        "--source",
        default="",
        metavar="PATH",
        help="source RPM, tarball or tree; or the release of one in the cache. Without it: the "
        "Debian package for lts61, the cached source for el6",
    )
    parser.add_argument(
        "--stock",
        action="store_true",
        help="without our features: to compare with and to fall back to (kernel-stock)",
    )
    parser.add_argument(
        "--fragment",
        action="append",
        metavar="NAME",
        help="configuration: fleet (default) or lab, and on top of it debug or a .config file of "
        "your own; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="copy the packages and their manifest there"
    )
    parser.add_argument(
        "--jobs", "-j", type=int, default=0, metavar="N", help="compile jobs (default: all cores)"
    )
    parser.add_argument(
        "--on",
        metavar="HOST",
        help="build on another machine, reached by ssh HOST; the same command comes back to a "
        "build that goes on there",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest and the paths")


def main(args: argparse.Namespace) -> int:
    """Build and say where the packages are."""
    fragments = tuple(args.fragment or ("fleet",))
    if "debug" in fragments and len(fragments) == 1:
        fragments = ("fleet", *fragments)
    if args.on:
        from fsdeploy.fleet import remote_build

        request = remote_build.RemoteRequest(
            args.target, args.source, fragments, stock=args.stock, jobs=args.jobs
        )
        fetched = remote_build.build_on(args.on, request, args.output)
        directory, described = fetched.directory, fetched.manifest
        files = [*fetched.packages, fetched.manifest_file]
    else:
        wanted = build.request(
            args.target, args.source, fragments, stock=args.stock, jobs=args.jobs
        )
        built = build.build_kernel(wanted)
        directory, described = built.directory, built.manifest
        packages = [built.kernel_rpm, built.devel_rpm, *built.module_rpms]
        files = [*packages, directory / "manifest.json"]
        if args.output:
            files = manifest.copy_out(packages, files[-1], args.output)
    if args.json:
        ui.emit_json(
            {
                "directory": str(directory),
                "kernel_rpm": str(files[0]),
                "devel_rpm": str(files[1]),
                "module_rpms": [str(file) for file in files[2:-1]],
                "manifest": asdict(described),
            }
        )
    else:
        ui.say(described.release)
        for file in files:
            ui.say(f"  {file}")
    return int(ExitCode.OK)
