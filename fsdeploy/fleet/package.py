# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel RPM is: the release it installs and the checksum it must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel.manifest import require_as_built
from fsdeploy.repository.key import PUBLIC_KEY, PublicKey, read_public_key
from fsdeploy.repository.publish import repository_of
from fsdeploy.repository.signature import signature_problem

_IMAGE = "/boot/vmlinuz-"


@dataclass(frozen=True)
class KernelPackage:
    """A kernel RPM. `release` is what `uname -r` says when it runs."""

    path: Path
    name: str
    release: str
    sha256: str
    # Bytes its files take, by mount point that usually is a file system of its own.
    boot_bytes: int
    root_bytes: int
    # What it must be signed with; hosts check that before they install it.
    key: PublicKey | None = None

    @property
    def is_patched(self) -> bool:
        """Whether it is our kernel and not the same source without our series."""
        return is_patched(self.release)


def is_patched(release: str) -> bool:
    """Whether a release is one of our patched kernels: `….fs1.<id>.x86_64`."""
    return re.search(r"[-.]fs\d+\.[0-9a-f]+\.", release) is not None


def is_ours(release: str) -> bool:
    """Whether fsdeploy built a kernel, patched or stock: its release ends with a build's id."""
    return re.search(r"[-.](fs\d+|stock)\.[0-9a-f]{8}\.", release) is not None


def read_package(path: Path, key: Path | None = None) -> KernelPackage:
    """Look into an RPM file.

    It must be signed with `key`; one in a repository of ours with the key of that.

    FsdeployError when it is not there, not an RPM, damaged, not for x86_64, brings no kernel, or
    is not signed as it must be.
    """
    if not path.is_file():
        raise FsdeployError(
            f"there is no package {path}",
            hint="fsdeploy build-kernel --target TARGET makes one and says where it is",
        )
    run.require("rpm")
    sha256 = require_as_built(path)
    form = "%{NAME}\\n%{ARCH}\\n[%{FILESIZES} %{FILENAMES}\\n]"
    asked = run.run(["rpm", "-qp", "--nosignature", "--qf", form, path], check=False)
    digests = run.run(["rpm", "-K", "--nosignature", path], check=False)
    if asked.returncode != 0 or digests.returncode != 0:
        raise FsdeployError(
            f"{path} is not a whole RPM package: {_last_line(asked.output + digests.output)}",
            hint="copy it again, or build it again with fsdeploy build-kernel",
        )
    lines = asked.output.splitlines()
    name, arch = lines[0], lines[1]
    sizes = [line.split(" ", 1) for line in lines[2:] if " " in line]
    if arch != "x86_64":
        raise FsdeployError(f"{path} is for {arch}, the fleet's hosts are x86_64")
    releases = [file[len(_IMAGE) :] for _, file in sizes if file.startswith(_IMAGE)]
    if len(releases) != 1:
        raise FsdeployError(
            f"{path} ({name}) is not a kernel package: it has {len(releases)} files {_IMAGE}…",
            hint="give the kernel RPM, not its -devel or another package",
        )
    boot = sum(int(size) for size, file in sizes if file.startswith("/boot/"))
    rest = sum(int(size) for size, file in sizes if not file.startswith("/boot/"))
    wanted = key_for(path, key)
    return KernelPackage(path.resolve(), name, releases[0], sha256, boot, rest, wanted)


def key_for(path: Path, key: Path | None) -> PublicKey | None:
    """What an RPM must be signed with: `key`, else the key of the repository of ours it lies in.

    FsdeployError when it is not.
    """
    repository = repository_of(path)
    file = key or (repository / PUBLIC_KEY if repository else None)
    if file is None:
        return None
    wanted = read_public_key(file)
    problem = signature_problem(path, wanted.path)
    if problem:
        raise FsdeployError(
            f"{path} must be signed with the key {wanted.fingerprint} ({wanted.path}), but"
            f" {problem}",
            hint="fsdeploy publish signs packages; give the one that it put into the repository",
        )
    return wanted


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no answer from rpm"
