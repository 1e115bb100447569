# SPDX-License-Identifier: GPL-2.0-only
"""Building libfsocket: from its sources to a package in the cache.

The library must load on CentOS 6, so it is built against the symbols of glibc 2.12, on any machine:
by the C compiler that the Python package `ziglang` brings. As with kernels, a build is identified
by the hash of its inputs and not built twice.

    stage     sources copied to a scratch folder, `make install` into root/
    check     no symbol of a later C library
    package   rpmbuild, and the whole folder moves to its place
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import __version__, paths, run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import manifest as manifests
from fsdeploy.kernel import package, store

# Part of every build's identity: raise it when the steps below change what comes out.
RECIPE = 1

TEMPLATE = "libfsocket.spec.in"

# What CentOS 6 has, as a tuple and as the compiler's target.
GLIBC = (2, 12)
_TARGET = "x86_64-linux-gnu.2.12"

# All files have one date, a round one: what came out does not depend on when it was built.
_EPOCH = 1767225600  # 2026-01-01

_ABI = "modules/fastsocket/fastsocket_abi.h"
_SYMBOL_VERSION = re.compile(r"\bGLIBC_(\d+(?:\.\d+)*)\b")


@dataclass(frozen=True)
class Identity:
    """The build's names, and its inputs."""

    build_id: str
    release: str
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the folder in the cache."""
        return f"libfsocket-{self.build_id[:8]}"


@dataclass(frozen=True)
class Library:
    """A finished build in the cache."""

    directory: Path
    rpm: Path

    @property
    def manifest(self) -> Path:
        """What went in and what came out."""
        return self.directory / "manifest.json"

    @property
    def shared_object(self) -> Path:
        """The library itself."""
        return self.directory / "root/usr/lib64/libfsocket.so"


def sources() -> dict[str, Path]:
    """What the library is made of: path below the data root, and where that is."""
    root = paths.data_root()
    folder = root / "libfsocket"
    kinds = {".c", ".h", ".map", ".in", ".1", ".7"}
    files = [path for path in folder.glob("*") if path.suffix in kinds or path.name == "Makefile"]
    if not files:
        raise FsdeployError(f"there are no sources of the library in {folder}")
    return {str(path.relative_to(root)): path for path in sorted([*files, root / _ABI])}


def _compiler_version() -> str:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as problem:
        raise FsdeployError(
            "the compiler for CentOS 6's C library is not installed",
            hint="pip install 'fsdeploy[build]'",
        ) from problem


def identify() -> Identity:
    """What a build would come to, before anything is done."""
    run.require("make", "readelf", "rpm", "rpmbuild")
    inputs = {
        "recipe": RECIPE,
        "version": __version__,
        "template": package.template_digest(TEMPLATE),
        "sources": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources().items()
        },
        "tools": {
            "ziglang": _compiler_version(),
            "rpmbuild": run.run(["rpmbuild", "--version"]).output.strip(),
        },
    }
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    build_id = hashlib.sha256(canonical.encode()).hexdigest()
    return Identity(build_id, f"1.{build_id[:8]}", inputs)


def _library(directory: Path, identity: Identity) -> Library:
    return Library(directory, directory / f"libfsocket-{__version__}-{identity.release}.x86_64.rpm")


def existing(identity: Identity) -> Library | None:
    """The finished build, or None. One that is not whole is none."""
    library = _library(paths.cache_dir() / "builds" / identity.name, identity)
    try:
        manifest = json.loads(library.manifest.read_text(encoding="utf-8"))
        whole = manifest["build_id"] == identity.build_id and all(
            manifests.describe_file(library.directory / name) == description
            for name, description in manifest["outputs"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return library if whole else None


def build_library() -> Library:
    """Build, or take the finished build of the same inputs."""
    identity = identify()
    builds = paths.cache_dir() / "builds"
    with store.exclusive(builds / f"{identity.name}.lock", "the build of libfsocket"):
        ready = existing(identity)
        if ready:
            ui.note(f"libfsocket {__version__} is built already")
            return ready
        final = builds / identity.name
        with (
            store.full_disk_named(builds, "the build of libfsocket"),
            ui.step(f"Build libfsocket {__version__}"),
            store.appearing(final) as directory,
        ):
            _make(identity, directory)
        return _library(final, identity)


def _make(identity: Identity, directory: Path) -> None:
    log = paths.log_dir() / f"build-{identity.name}.log"
    work, root = directory / "work", directory / "root"
    for name, path in sources().items():
        copy = work / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    compiler = f"{sys.executable} -m ziglang cc -target {_TARGET}"
    run.run(
        ["make", "install", f"CC={compiler}", "LDFLAGS=-s", f"DESTDIR={root}"],
        cwd=work / "libfsocket",
        env={
            "ZIG_GLOBAL_CACHE_DIR": str(paths.cache_dir() / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        },
        log=log,
    )
    library = root / "usr/lib64/libfsocket.so"
    newer = newer_symbols(library)
    if newer:
        raise FsdeployError(
            f"the library would need {', '.join(newer)}, which CentOS 6 does not have", log=log
        )
    record = {"build_id": identity.build_id, **identity.inputs}
    inside = root / "usr/share/fsdeploy/libfsocket/manifest.json"
    inside.parent.mkdir(parents=True)
    store.write_atomically(inside, json.dumps(record, indent=2, sort_keys=True) + "\n")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (_EPOCH, _EPOCH))
    spec = package.render(TEMPLATE, {"version": __version__, "release": identity.release})
    (built,) = package.build(spec, root, directory / "rpm", _EPOCH, log)
    rpm = Path(shutil.move(built, directory / built.name))
    store.remove_tree(directory / "rpm")
    store.remove_tree(work)
    outputs = {
        str(path.relative_to(directory)): manifests.describe_file(path) for path in (rpm, library)
    }
    store.write_atomically(
        directory / "manifest.json",
        json.dumps({**record, "outputs": outputs}, indent=2, sort_keys=True) + "\n",
    )


def newer_symbols(library: Path) -> tuple[str, ...]:
    """Symbol versions of the C library that a file needs and CentOS 6 does not have."""
    listed = run.run(["readelf", "--version-info", "--wide", library]).output
    versions = set(_SYMBOL_VERSION.findall(listed))
    if not versions:
        raise FsdeployError(f"{library} names no version of the C library")
    return tuple(
        f"GLIBC_{version}"
        for version in sorted(versions)
        if tuple(int(part) for part in version.split(".")) > GLIBC
    )
