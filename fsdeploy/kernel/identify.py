# SPDX-License-Identifier: GPL-2.0-only
"""What a path holds: a source RPM, a tarball or a tree; of which kernel; whole or damaged."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.target import Target

Kind = Literal["srpm", "tarball", "tree"]

# The tarball in a distribution's kernel package.
PACKED_TREE = re.compile(r"linux-\d+\.\d+\.\d+-\w[\w.]*\.tar\.(bz2|xz|gz)")
DAMAGED_HINT = "get it again and compare its checksum with the publisher's"

_RPM_MAGIC = b"\xed\xab\xee\xdb"
_TAR_MAGIC = {b"\xfd7zXZ": "xz", b"BZh": "bz2", b"\x1f\x8b": "gz"}


@dataclass(frozen=True)
class Identity:
    """What a path holds. `release` is empty for a kernel that is not a distribution's."""

    kind: Kind
    path: Path
    version: str
    release: str
    digest: str

    @property
    def name(self) -> str:
        """`2.6.32-431.el6`, `6.1.100`."""
        return f"{self.version}-{self.release}" if self.release else self.version


def identify(path: Path) -> Identity:
    """What `path` holds. Raises FsdeployError for what is damaged or is no kernel source."""
    path = path.absolute()
    if path.is_dir():
        return _identify_tree(path)
    if not path.is_file():
        raise FsdeployError(
            f"there is no {path}", hint="name a source RPM, a tarball or an unpacked kernel tree"
        )
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_RPM_MAGIC):
        return _identify_srpm(path)
    if path.suffix == ".rpm":
        raise FsdeployError(
            f"{path} is damaged: it does not begin like an RPM package", hint=DAMAGED_HINT
        )
    if packing(magic) or tarfile.is_tarfile(path):
        return _identify_tarball(path)
    raise FsdeployError(
        f"{path} is neither a source RPM nor a tarball nor a kernel tree",
        hint="a tarball is .tar.xz, .tar.bz2 or .tar.gz",
    )


def require_fit(version: str, release: str, target: Target, where: Path | str) -> None:
    """Refuse a source by name that the target's series is not for."""
    if target.accepts(version, release):
        return
    name = f"{version}-{release}" if release else version
    remark = ""
    if target.is_distribution and version == target.version and not release:
        remark = " as kernel.org has it, without the distribution's changes"
    raise FsdeployError(
        f"{where}: this is {name}{remark}; the {target.name} series is for {target.wanted()}",
        hint=f"get the source of {target.title}",
    )


def require_any_fit(found: Identity) -> None:
    """Refuse a source that no series of ours is for."""
    known = targets.load_all()
    if any(target.accepts(found.version, found.release) for target in known):
        return
    if (
        len(of_line := [target for target in known if found.version.startswith(target.version)])
        == 1
    ):
        require_fit(found.version, found.release, of_line[0], found.path)
    wanted = "; ".join(f"{target.name} for {target.wanted()}" for target in known)
    raise FsdeployError(
        f"{found.path}: this is {found.name}; no series of ours is for it",
        hint=f"there is {wanted}",
    )


def _identify_srpm(path: Path) -> Identity:
    run.require("rpm", "rpm2cpio", "cpio", "tar")
    query = run.run(
        ["rpm", "-qp", "--nosignature", "--qf",
         r"%{NAME}\n%{VERSION}\n%{RELEASE}\n%{SOURCEPACKAGE}\n", path],
        check=False,
    )  # fmt: skip
    words = query.output.split("\n")
    if query.returncode != 0 or len(words) < 4:
        raise FsdeployError(f"{path} is damaged: its RPM header cannot be read", hint=DAMAGED_HINT)
    name, version, release, is_source = words[-5:-1]
    if is_source != "1":
        raise FsdeployError(
            f"{path} is a binary package ({name}-{version}-{release})",
            hint="the source package is needed: kernel-VERSION-RELEASE.src.rpm",
        )
    if name != "kernel":
        raise FsdeployError(
            f"{path} is the source of {name}-{version}-{release}, not of a kernel",
            hint="the source package is needed: kernel-VERSION-RELEASE.src.rpm",
        )
    check = run.run(["rpm", "-Kv", "--nosignature", path], check=False)
    if check.returncode != 0:
        raise FsdeployError(
            f"{path} ({name}-{version}-{release}) is damaged or incomplete: "
            "its content does not have the checksum in its header",
            hint=DAMAGED_HINT,
        )
    files = run.run(["rpm", "-qpl", "--nosignature", path]).output.split()
    lacking = [
        file
        for file in ("kernel.spec", "config-generic", "merge.pl", "Makefile.config")
        if file not in files
    ]
    if lacking or not any(PACKED_TREE.fullmatch(file) for file in files):
        raise FsdeployError(
            f"{path} is not laid out like CentOS's kernel package: it has no "
            + (lacking[0] if lacking else "linux-VERSION-RELEASE.tar.bz2"),
            hint="an SRPM of CentOS or Red Hat Enterprise Linux 6 is understood; "
            "for another one name its unpacked tree",
        )
    return Identity("srpm", path, version, release, file_digest(path))


def _identify_tarball(path: Path) -> Identity:
    top, text = _makefile_of_tarball(path)
    version, release = version_of(text, top, path)
    return Identity("tarball", path, version, release, file_digest(path))


def _makefile_of_tarball(path: Path) -> tuple[str, str]:
    """Name of the one top folder, and its Makefile; reads no further than that."""
    try:
        with tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) == 2 and parts[1] == "Makefile":
                    file = archive.extractfile(member)
                    assert file is not None
                    return parts[0], file.read().decode("utf-8", "replace")
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as problem:
        if isinstance(problem, PermissionError):
            raise
        raise FsdeployError(
            f"{path} is damaged or incomplete: {problem}", hint=DAMAGED_HINT
        ) from problem
    raise FsdeployError(
        f"{path} holds no kernel tree: there is no FOLDER/Makefile in it",
        hint="name a kernel's source",
    )


def _identify_tree(path: Path) -> Identity:
    makefile = path / "Makefile"
    if not makefile.is_file() or not (path / "kernel").is_dir():
        raise FsdeployError(
            f"{path} is not a kernel tree: it has no Makefile or no folder kernel",
            hint="name the top folder of a kernel's source",
        )
    version, release = version_of(
        makefile.read_text(encoding="utf-8", errors="replace"), path.name, path
    )
    for leftover in (".config", "vmlinux", "include/config"):
        if (path / leftover).exists():
            raise FsdeployError(
                f"{path} has been built in: there is {leftover}",
                hint="run `make mrproper` in it, or name a fresh tree",
            )
    # Two releases can have the same content; the name of the folder is what tells them apart.
    digest = hashlib.sha256(f"{version}-{release} {_tree_digest(path)}".encode()).hexdigest()
    return Identity("tree", path, version, release, digest)


def parse_makefile(text: str) -> dict[str, str]:
    """The version variables at the top of a kernel's Makefile."""
    found = re.findall(
        r"^((?:VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION|RHEL_[A-Z]+))[ \t]*=[ \t]*(\S*)[ \t]*$",
        text,
        re.MULTILINE,
    )
    values: dict[str, str] = {}
    for name, value in found:
        values.setdefault(name, value)
    return values


def version_of(makefile: str, folder: str, where: Path) -> tuple[str, str]:
    """Version and release from a Makefile and the name of the folder it lies in.

    Red Hat's Makefile knows the build before (RHEL_RELEASE 430 in every 431.*.el6), so the full
    release stands in the folder's name only; where the two contradict, neither is believed.
    """
    values = parse_makefile(makefile)
    if not {"VERSION", "PATCHLEVEL", "SUBLEVEL"} <= values.keys():
        raise FsdeployError(
            f"{where} is not a kernel's source: its Makefile names no version",
            hint="name a kernel's source",
        )
    version = ".".join(values[name] for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))
    version += values.get("EXTRAVERSION", "")
    build = values.get("RHEL_RELEASE", "")
    if not build.isdigit():
        return version, ""
    expected = int(build) + 1
    match = re.match(r"linux-[\d.]+-((\d+)(?:\.\d+)*\.el\d+)", folder)
    if not match:
        return version, f"{expected}.el{values.get('RHEL_MAJOR', '')}"
    if int(match[2]) != expected:
        raise FsdeployError(
            f"{where} contradicts itself: the folder is called {folder}, "
            f"but its Makefile is that of build {expected}",
            hint="get the source again",
        )
    return version, match[1]


def packing(magic: bytes) -> str:
    """How a file is packed, by its first bytes: xz, bz2, gz, or nothing known."""
    return next((name for start, name in _TAR_MAGIC.items() if magic.startswith(start)), "")


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(tree: Path) -> Iterator[Path]:
    """Files and links of a tree in a stable order, without what version control keeps."""
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != ".git")
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted((*files, *links)):
            if name != ".git":
                yield here / name


def _tree_digest(tree: Path) -> str:
    total = hashlib.sha256()
    for path in files(tree):
        relative = os.fsencode(path.relative_to(tree))
        if path.is_symlink():
            content = b"link " + os.fsencode(path.readlink())
        else:
            runs = b"x" if path.stat().st_mode & 0o100 else b"-"
            content = b"file" + runs + file_digest(path).encode()
        total.update(relative + b"\0" + content + b"\n")
    return total.hexdigest()
