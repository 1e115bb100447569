# SPDX-License-Identifier: GPL-2.0-only
"""Unpacking a source to `tree/`, and of a source RPM what the build needs to `distribution/`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel.identify import (
    DAMAGED_HINT,
    PACKED_TREE,
    Identity,
    files,
    packing,
    version_of,
)

# Bytes of a tree for each byte of its packed form: measured 10 (xz) and 6 (bzip2, gzip).
_GROWTH = {"xz": 11, "bz2": 7, "gz": 7, "tar": 2}
# What the build and the kABI check want of a source RPM beside the tree.
_KEPT = re.compile(
    r"kernel\.spec|config-[\w.-]+|merge\.pl|Makefile\.(config|common)|Module\.kabi_[\w]+|.*\.patch"
)
_APPLY_PATCH = re.compile(r"^Apply(Optional)?Patch\s+([\w.+-]+)", re.MULTILINE)


def unpacked_size(identity: Identity) -> int:
    """About how many bytes it takes, unpacked."""
    if identity.kind == "tree":
        return sum(path.lstat().st_size for path in files(identity.path))
    size = identity.path.stat().st_size
    if identity.kind == "srpm":
        return size * _GROWTH["bz2"]
    with identity.path.open("rb") as file:
        return size * _GROWTH[packing(file.read(6)) or "tar"]


def unpack(identity: Identity, folder: Path) -> None:
    """Unpack into an empty folder. Raises FsdeployError for what turns out to be damaged."""
    if identity.kind == "tree":
        shutil.copytree(
            identity.path,
            folder / "tree",
            symlinks=True,
            ignore=lambda _folder, names: [name for name in names if name == ".git"],
        )
    elif identity.kind == "tarball":
        _unpack_tarball(identity.path, folder)
    else:
        _unpack_srpm(identity, folder)


def _unpack_tarball(path: Path, folder: Path) -> str:
    """Unpack to folder/tree; returns the name the top folder had."""
    place = folder / "unpacked"
    place.mkdir()
    try:
        run.run(["tar", "-x", "--no-same-owner", "-f", path, "-C", place])
    except run.CommandFailed as problem:
        if "No space left" in problem.message:
            raise
        raise FsdeployError(
            f"{path} is damaged or incomplete: {_first_line(problem.result.output)}",
            hint=DAMAGED_HINT,
        ) from problem
    tops = [entry for entry in place.iterdir() if entry.name != "pax_global_header"]
    if len(tops) != 1 or not (tops[0] / "Makefile").is_file():
        raise FsdeployError(f"{path} does not hold exactly one kernel tree")
    tops[0].rename(folder / "tree")
    shutil.rmtree(place)
    return tops[0].name


def _unpack_srpm(identity: Identity, folder: Path) -> None:
    packed = folder / "packed"
    distribution = folder / "distribution"
    packed.mkdir()
    distribution.mkdir()
    archive = packed / "payload.cpio"
    with archive.open("wb") as file:
        run.run(["rpm2cpio", identity.path], stdout=file)
    with archive.open("rb") as file:
        run.run(
            [
                "cpio",
                "-i",
                "--quiet",
                "--make-directories",
                "--no-absolute-filenames",
                "--no-preserve-owner",
            ],
            cwd=packed,
            stdin=file,
        )
    archive.unlink()
    tarballs = [path for path in packed.iterdir() if PACKED_TREE.fullmatch(path.name)]
    if len(tarballs) != 1:
        raise FsdeployError(f"{identity.path} does not hold exactly one kernel tarball")
    top = _unpack_tarball(tarballs[0], folder)
    version, release = version_of(
        (folder / "tree/Makefile").read_text(encoding="utf-8", errors="replace"), top, identity.path
    )
    if (version, release) != (identity.version, identity.release):
        raise FsdeployError(
            f"{identity.path} contradicts itself: the package is {identity.name}, "
            f"the kernel in it {version}-{release}"
        )
    for path in packed.iterdir():
        if _KEPT.fullmatch(path.name):
            path.rename(distribution / path.name)
    shutil.rmtree(packed)
    _apply_distribution_patches(distribution, folder / "tree")


def _apply_distribution_patches(distribution: Path, tree: Path) -> None:
    """What %prep of the distribution's spec puts on top of the tarball, with its own options.

    An "optional" patch of at most nine lines is a place holder there and is left out.
    """
    spec = (distribution / "kernel.spec").read_text(encoding="utf-8", errors="replace")
    for optional, name in _APPLY_PATCH.findall(spec.partition("\n%changelog")[0]):
        path = distribution / name
        if not path.is_file():
            raise FsdeployError(f"the source RPM lacks {name}, which its spec applies")
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if optional and text.count("\n") <= 9:
            continue
        run.run(["patch", "-p1", "-F1", "-s", "--no-backup-if-mismatch", "-i", path], cwd=tree)


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0].strip() if lines else "no message"
