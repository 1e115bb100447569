# SPDX-License-Identifier: GPL-2.0-only
"""A yum repository in a folder: packages, signed, and signed metadata that CentOS 6's yum reads.

    FOLDER/Packages/*.rpm         never replaced by another package of the same name, never removed
    FOLDER/metadata/NUMBER        what is published; its files name packages with their sha256
    FOLDER/repodata               → metadata/NUMBER
    FOLDER/RPM-GPG-KEY-fsdeploy   the public key
    FOLDER/fsdeploy.repo          for a host's /etc/yum.repos.d
    FOLDER/.fsdeploy              lock and what is not finished; its presence makes the folder ours

Packages come first, then their metadata, and the link is switched last and at once: whenever a
reader comes, or this process dies, the metadata names packages that are there. A reader of the
metadata before still finds its files for the length of one more publication.
"""

from __future__ import annotations

import gzip
import os
import shutil
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsdeploy import run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store
from fsdeploy.kernel.identify import file_digest
from fsdeploy.kernel.manifest import require_as_built
from fsdeploy.kernel.package import RPM_4_8_FEATURES
from fsdeploy.repository.key import PUBLIC_KEY, SigningKey, find_signing_key, read_public_key
from fsdeploy.repository.signature import content_sha256, signature_problem

_PACKAGES = "Packages"
_METADATA = "metadata"
_LINK = "repodata"
_OURS = ".fsdeploy"
REPO_FILE = "fsdeploy.repo"

# What rpm 4.8 unpacks, and the digests of files that it knows: MD5 (no value), SHA-1, SHA-256.
_PAYLOADS = frozenset({"gzip", "xz"})
_DIGESTS = frozenset({"(none)", "1", "2", "8"})

_SPARE_BYTES = 64 << 20
_NAMESPACES = {
    "repo": "http://linux.duke.edu/metadata/repo",
    "common": "http://linux.duke.edu/metadata/common",
}

_REPO = """\
# For /etc/yum.repos.d on CentOS 6. Put the address that serves this folder in place of ADDRESS, and
# {public_key} into /etc/pki/rpm-gpg (fingerprint {fingerprint}).
# yum 3.2 looks at the signature of a package's header only; that of the metadata
# (repo_gpgcheck) is what holds the rest. Not enabled: kernels come by a rollout, not by yum update.
[fsdeploy]
name=Packages published by fsdeploy
baseurl=ADDRESS
enabled=0
gpgcheck=1
repo_gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/{public_key}
"""


@dataclass(frozen=True)
class PublishRequest:
    """Packages to publish, the key's name, and the repository's folder."""

    packages: tuple[Path, ...]
    key: str
    output: Path
    gnupg_home: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Given:
    """A package as it was given. `content` is the sha256 of all but its signature."""

    path: Path
    file: str
    content: str


@dataclass(frozen=True)
class Published:
    """A package that the metadata names. `content` is empty when its file is not as it says."""

    file: str
    sha256: str
    content: str = ""


@dataclass(frozen=True)
class PublishReport:
    """What was done, or would be: packages by file name that came new, and that were there."""

    directory: Path
    fingerprint: str
    added: tuple[str, ...]
    kept: tuple[str, ...]
    changed: bool
    dry_run: bool = False

    @property
    def public_key(self) -> Path:
        """What hosts check the packages with."""
        return self.directory / PUBLIC_KEY

    def path_of(self, file: str) -> Path:
        """A package in the repository."""
        return self.directory / _PACKAGES / file

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "directory": str(self.directory),
            "fingerprint": self.fingerprint,
            "public_key": str(self.public_key),
            "repo_file": str(self.directory / REPO_FILE),
            "added": [str(self.path_of(file)) for file in self.added],
            "kept": [str(self.path_of(file)) for file in self.kept],
            "changed": self.changed,
            "dry_run": self.dry_run,
        }


def repository_of(package: Path) -> Path | None:
    """The repository that a package file is in, None when it is in none."""
    folder = package.resolve().parent
    is_one = folder.name == _PACKAGES and (folder.parent / PUBLIC_KEY).is_file()
    return folder.parent if is_one else None


def address_of(base: str, package: Path) -> str:
    """Where a host finds a published package, below the repository's address."""
    return f"{base.rstrip('/')}/{_PACKAGES}/{package.name}"


# Looking at what is given and what is there.


def read_given(path: Path) -> Given:
    """Look at a package. FsdeployError when it is damaged, or rpm 4.8 could not read it."""
    if not path.is_file():
        raise FsdeployError(f"there is no package {path}")
    require_as_built(path)
    form = (
        "%{NAME}-%{VERSION}-%{RELEASE}.%|SOURCERPM?{%{ARCH}}:{src}|.rpm\\n"
        "%{PAYLOADCOMPRESSOR}\\n%{FILEDIGESTALGO}\\n[%{REQUIRENAME}\\n]"
    )
    asked = run.run(["rpm", "-qp", "--nosignature", "--qf", form, path], check=False)
    digests = run.run(["rpm", "-K", "--nosignature", path], check=False)
    if asked.returncode != 0 or digests.returncode != 0:
        said = [line for line in (asked.output + digests.output).splitlines() if line.strip()]
        raise FsdeployError(
            f"{path} is not a whole RPM package: {said[-1] if said else 'no answer from rpm'}",
            hint="copy it again, or build it again; nothing was published",
        )
    file, payload, digest, *requires = asked.output.splitlines()
    foreign = [
        name for name in requires if name.startswith("rpmlib(") and name not in RPM_4_8_FEATURES
    ]
    if payload not in _PAYLOADS:
        foreign.append(f"a payload packed with {payload}")
    if digest not in _DIGESTS:
        foreign.append(f"file digests of algorithm {digest}")
    if foreign:
        raise FsdeployError(
            f"{path} cannot be installed by rpm 4.8: it needs {', '.join(foreign)}",
            hint="build it with a gzip payload and sha256 file digests",
        )
    return Given(path.resolve(), file, content_sha256(path))


def read_metadata(folder: Path) -> list[Published]:
    """The packages that metadata names. ValueError or OSError when it is damaged."""
    root = ET.fromstring((folder / "repomd.xml").read_bytes())
    primary: Path | None = None
    for entry in root.findall("repo:data", _NAMESPACES):
        name = _attribute(entry, "repo:location", "href").rpartition("/")[2]
        if file_digest(folder / name) != _text(entry, "repo:checksum"):
            raise ValueError(f"{name} is not what repomd.xml says")
        if entry.get("type") == "primary":
            primary = folder / name
    if primary is None:
        raise ValueError("it has no list of packages")
    packages = ET.fromstring(gzip.decompress(primary.read_bytes()))
    return [
        Published(
            _attribute(package, "common:location", "href").rpartition("/")[2],
            _text(package, "common:checksum"),
        )
        for package in packages.findall("common:package", _NAMESPACES)
    ]


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path, _NAMESPACES)
    if found is None or name not in found.attrib:
        raise ValueError(f"there is no {path}")
    return found.attrib[name]


def _text(element: ET.Element, path: str) -> str:
    found = element.findtext(path, namespaces=_NAMESPACES)
    if not found:
        raise ValueError(f"there is no {path}")
    return found


def plan(given: Sequence[Given], published: Mapping[str, Published]) -> dict[str, Given]:
    """The packages that are new, by file name. Pure.

    FsdeployError when a name stands for two packages: hosts may have installed the first.
    """
    new: dict[str, Given] = {}
    seen: dict[str, Given] = {}
    for item in given:
        other = seen.setdefault(item.file, item)
        if other.content != item.content:
            raise FsdeployError(
                f"{other.path} and {item.path} are two packages of one name, {item.file}",
                hint="publish the one that is meant",
            )
        there = published.get(item.file)
        if there is None or not there.content:
            new[item.file] = other
        elif there.content != item.content:
            raise FsdeployError(
                f"another {item.file} is published: a package is never replaced by one of the same"
                " name, hosts may have it",
                hint="build the new one with another release",
            )
    damaged = [name for name, item in published.items() if not item.content and name not in new]
    if damaged:
        raise FsdeployError(
            f"{_PACKAGES}/{damaged[0]} is not what was published, or is gone; nothing was changed",
            hint=f"publish it once more: give {damaged[0]} as well",
        )
    return new


def _refuse_foreign(folder: Path) -> None:
    """A folder with things of others in it is left alone."""
    if folder.exists() and not folder.is_dir():
        raise FsdeployError(f"{folder} is not a folder")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names and _OURS not in names:
        raise FsdeployError(
            f"{folder} has other things in it, {min(names)} for one",
            hint="name a new or an empty folder, or one that fsdeploy publish made",
        )
    link = folder / _LINK
    if link.exists() and not link.is_symlink():
        raise FsdeployError(
            f"{folder} is a copy of a repository in which {_LINK} is no link any more",
            hint="publish into the first one and copy that again (rsync -a keeps links)",
        )


def _look(folder: Path, key: SigningKey) -> dict[str, Published]:
    """What is published. FsdeployError for a folder that is not ours, or not this key's."""
    _refuse_foreign(folder)
    if (folder / PUBLIC_KEY).is_file():
        other = read_public_key(folder / PUBLIC_KEY).fingerprint
        if other != key.fingerprint:
            raise FsdeployError(
                f"{folder} is signed with the key {other}, not with {key.fingerprint}",
                hint="publish with the key that hosts trust already, or into another folder",
            )
    link = folder / _LINK
    if not link.is_symlink():
        return {}
    if not key.has_signed_file(link / "repomd.xml", link / "repomd.xml.asc"):
        raise _damaged(link, "its signature is not there or not the key's")
    try:
        found = read_metadata(link)
    except (OSError, EOFError, ValueError, ET.ParseError, zlib.error) as problem:
        raise _damaged(link, str(problem)) from problem
    published = {}
    for item in found:
        path = folder / _PACKAGES / item.file
        whole = path.is_file() and file_digest(path) == item.sha256
        content = content_sha256(path) if whole else ""
        published[item.file] = replace(item, content=content)
    return published


def _damaged(link: Path, why: str) -> FsdeployError:
    return FsdeployError(
        f"the metadata in {link} is damaged: {why}; nothing was changed",
        hint=f"remove the link {link} and publish all of {link.parent / _PACKAGES} anew: packages"
        " signed with the key stay as they are",
    )


# Doing it.


def publish(request: PublishRequest) -> PublishReport:
    """Publish packages beside those that are published.

    FsdeployError when one of them cannot be; then, as with any other end before the last step,
    readers of the repository see what they saw before.
    """
    run.require("createrepo_c", "gpg", "gpg-agent", "rpm", "rpmsign")
    key = find_signing_key(request.key, request.gnupg_home)
    given = [read_given(path) for path in request.packages]
    folder = request.output.absolute()
    if request.dry_run:
        return _report(request, key, given, plan(given, _look(folder, key)), changed=False)
    _refuse_foreign(folder)
    lock = folder / _OURS / "lock"
    with store.exclusive(lock, f"the repository {folder}"):
        # What a killed publication left, if one was.
        scratch = folder / _OURS / "new"
        store.remove_tree(scratch)
        published = _look(folder, key)
        new = plan(given, published)
        changed = _write_beside(folder, key)
        if new:
            with store.full_disk_named(folder, "the publication", "--output"):
                _publish(folder, key, new, published, scratch)
    return _report(request, key, given, new, changed=changed or bool(new))


def _report(
    request: PublishRequest,
    key: SigningKey,
    given: Sequence[Given],
    new: Mapping[str, Given],
    *,
    changed: bool,
) -> PublishReport:
    kept = {item.file for item in given} - set(new)
    return PublishReport(
        request.output.absolute(),
        key.fingerprint,
        tuple(sorted(new)),
        tuple(sorted(kept)),
        changed,
        request.dry_run,
    )


def _write_beside(folder: Path, key: SigningKey) -> bool:
    """The public key and the file for yum; returns whether one of them was another before."""
    repo = _REPO.format(public_key=PUBLIC_KEY, fingerprint=key.fingerprint)
    changed = False
    for name, text in ((PUBLIC_KEY, key.export()), (REPO_FILE, repo)):
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            store.write_atomically(path, text)
            changed = True
    return changed


def _publish(
    folder: Path,
    key: SigningKey,
    new: Mapping[str, Given],
    published: Mapping[str, Published],
    scratch: Path,
) -> None:
    # A package is there twice while it is being signed.
    needed = 2 * sum(item.path.stat().st_size for item in new.values()) + _SPARE_BYTES
    store.require_space(folder, needed, "the publication", "--output")
    scratch.mkdir()
    try:
        for item in new.values():
            with ui.step(f"sign {item.file}"):
                _signed(item, key, scratch, folder / PUBLIC_KEY)
        (folder / _PACKAGES).mkdir(exist_ok=True)
        for file in new:
            (scratch / file).replace(folder / _PACKAGES / file)
        with ui.step("metadata"):
            made = _make_metadata(folder, sorted({*published, *new}), scratch)
            key.sign_file(made / "repomd.xml", made / "repomd.xml.asc")
        _switch(folder, made)
    finally:
        store.remove_tree(scratch)


def _signed(item: Given, key: SigningKey, scratch: Path, public_key: Path) -> None:
    copy = scratch / item.file
    shutil.copyfile(item.path, copy)
    # One that came signed with the key stays as it is, byte by byte.
    if signature_problem(copy, public_key):
        key.sign_package(copy)
        problem = signature_problem(copy, public_key)
        if problem or content_sha256(copy) != item.content:
            raise FsdeployError(
                f"{item.file} was not signed as it should: {problem or 'its content changed'}"
            )
    copy.chmod(0o644)
    _settle(copy)


def _make_metadata(folder: Path, files: Sequence[str], scratch: Path) -> Path:
    """Metadata for these packages and no others that lie beside them."""
    listing = scratch / "packages"
    listing.write_text("".join(f"{_PACKAGES}/{file}\n" for file in files), encoding="utf-8")
    # yum 3.2 reads gzip. It makes its own databases: no need for createrepo's.
    run.run(
        ["createrepo_c", "--quiet", "--checksum=sha256", "--general-compress-type=gz",
         "--compress-type=gz", "--no-database", f"--pkglist={listing}", f"--outputdir={scratch}",
         folder]
    )  # fmt: skip
    made = scratch / "repodata"
    written = {item.file: item.sha256 for item in read_metadata(made)}
    wanted = {file: file_digest(folder / _PACKAGES / file) for file in files}
    if written != wanted:
        wrong = sorted(file for file in wanted if written.get(file) != wanted[file])
        raise FsdeployError(f"createrepo_c wrote no true metadata for {', '.join(wrong)}")
    return made


def _switch(folder: Path, made: Path) -> None:
    """Let the finished metadata be what is read, in one step."""
    link, kept = folder / _LINK, folder / _METADATA
    kept.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in kept.iterdir() if path.name.isdecimal()]
    if link.is_symlink():
        # For a reader that has the repomd.xml before and comes for its files.
        for name in _data_files(link):
            if not (made / name).exists():
                (made / name).hardlink_to((link / name).resolve())
    for path in made.iterdir():
        _settle(path)
    fresh = kept / str(max(numbers, default=0) + 1)
    made.rename(fresh)
    switch = folder / _OURS / "new" / _LINK
    switch.symlink_to(Path(_METADATA) / fresh.name)
    _settle(folder / _PACKAGES)
    _settle(kept)
    switch.replace(link)
    _settle(folder)
    for path in kept.iterdir():
        if path != fresh:
            store.remove_tree(path)


def _data_files(metadata: Path) -> list[str]:
    """The files that a repomd.xml names."""
    root = ET.fromstring((metadata / "repomd.xml").read_bytes())
    return [
        _attribute(entry, "repo:location", "href").rpartition("/")[2]
        for entry in root.findall("repo:data", _NAMESPACES)
    ]


def _settle(path: Path) -> None:
    """See that a file or a folder is on the disk before something names it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
