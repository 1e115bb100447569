# SPDX-License-Identifier: GPL-2.0-only
"""The cache of kernel sources.

A source is identified, refused by name where no series fits, and unpacked once into
`cache/sources/HASH`:

    tree/           the kernel tree, pristine; builds hard-link it and never write through
    distribution/   of a source RPM: kernel.spec, config-*, merge rules, kABI lists
    tree.seal       changes when something writes to the tree
    source.json     what it is; written last, so a folder with it is whole
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from fsdeploy import paths, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store
from fsdeploy.kernel.identify import Identity, Kind, file_digest, files, identify, require_fit
from fsdeploy.kernel.target import Target
from fsdeploy.kernel.unpack import unpack, unpacked_size


@dataclass(frozen=True)
class Source:
    """An unpacked source in the cache.

    `epoch` is the date of the source in seconds since 1970, 0 where it is not known (a tree).
    """

    directory: Path
    kind: Kind
    version: str
    release: str
    digest: str
    origin: str
    epoch: int

    @property
    def name(self) -> str:
        """`2.6.32-431.el6`, `6.1.100`."""
        return f"{self.version}-{self.release}" if self.release else self.version

    @property
    def tree(self) -> Path:
        """The pristine tree. Read only."""
        return self.directory / "tree"

    @property
    def distribution(self) -> Path | None:
        """Folder with the distribution's spec, configurations and kABI lists, if it came along."""
        folder = self.directory / "distribution"
        return folder if folder.is_dir() else None

    @property
    def kabi_list(self) -> Path | None:
        """The distribution's list of symbols that must not change, if it came along."""
        path = self.directory / "distribution" / "Module.kabi_x86_64"
        return path if path.is_file() else None


def cache() -> Path:
    """Where unpacked sources are."""
    return paths.cache_dir() / "sources"


def cached() -> tuple[Source, ...]:
    """The sources in the cache, oldest release first."""
    found = [_load(path.parent) for path in cache().glob("[0-9a-f]*/source.json")]
    return tuple(sorted((source for source in found if source), key=_age))


def find(target: Target, name: str = "") -> Source | None:
    """The cached source for a target: the oldest release, or the one called `name`.

    A name may be the hash that `fsdeploy source list` shows. Of a release that is there as a
    source RPM and as a bare tree, the RPM: it can build more.
    """
    fitting = [
        source
        for source in cached()
        if target.accepts(source.version, source.release)
        and name in ("", source.name, source.release, source.version, source.directory.name)
    ]
    same = [source for source in fitting if source.name == fitting[0].name]
    return next((source for source in same if source.distribution), fitting[0] if fitting else None)


def add(path: Path, target: Target | None = None) -> Source:
    """Put a source into the cache, so that its original can go away. Nothing half stays behind."""
    path = path.absolute()
    if path.is_file() and (ready := _load(cache() / file_digest(path)[:16])):
        if target:
            require_fit(ready.version, ready.release, target, path)
        return ready
    with ui.step(f"Identify {path.name}"):
        identity = identify(path)
        ui.note(f"{identity.name} ({identity.kind}, sha256 {identity.digest[:16]}…)")
    if target:
        require_fit(identity.version, identity.release, target, path)
    folder = cache() / identity.digest[:16]
    ready = _load(folder)
    if ready:
        return ready
    with (
        store.full_disk_named(cache(), f"unpacking {path.name}"),
        store.exclusive(cache() / f"{folder.name}.lock", f"the source {identity.name}"),
    ):
        # Somebody may have unpacked it while we waited.
        ready = _load(folder)
        if ready:
            return ready
        _sweep()
        store.require_space(cache(), unpacked_size(identity), f"unpacking {path.name}")
        with (
            ui.step(f"Unpack {identity.name} into the cache"),
            store.appearing(folder) as partial,
        ):
            unpack(identity, partial)
            source = Source(
                directory=folder,
                kind=identity.kind,
                version=identity.version,
                release=identity.release,
                digest=identity.digest,
                origin=path.name,
                epoch=_epoch(identity, partial),
            )
            store.write_atomically(partial / "tree.seal", fingerprint(partial / "tree"))
            _save(source, partial)
    return source


def remove(name: str) -> tuple[Source, ...]:
    """Take the sources of this name, release or hash out of the cache; returns them."""
    chosen = tuple(
        source
        for source in cached()
        if name and name in (source.name, source.release, source.directory.name, source.digest)
    )
    if not chosen:
        raise FsdeployError(
            f"there is no source {name} in the cache", hint="`fsdeploy source list` shows them"
        )
    for source in chosen:
        with store.exclusive(
            cache() / f"{source.directory.name}.lock", f"the source {source.name}"
        ):
            store.remove_tree(source.directory)
    return chosen


def resolve(target: Target, wanted: str = "") -> Source:
    """The source a build shall use.

    `wanted` is a path, or the release of a cached source; without it the Debian package the target
    names, then the cache.
    """
    if wanted:
        path = Path(wanted)
        if not path.exists():
            kept = find(target, wanted)
            if kept:
                return kept
        return add(path, target)
    if target.source_package:
        packaged = Path("/usr/src") / f"{target.source_package}.tar.xz"
        if packaged.is_file():
            return add(packaged, target)
    kept = find(target)
    if kept:
        others = [
            source.name
            for source in cached()
            if source != kept and target.accepts(source.version, source.release)
        ]
        if others:
            ui.note(f"source {kept.name}; --source takes {' or '.join(others)} too")
        return kept
    if target.source_package:
        raise FsdeployError(
            f"there is no source for {target.name}",
            hint=f"apt-get install {target.source_package}, or name a tarball with --source",
        )
    raise FsdeployError(
        f"there is no source for {target.name} ({target.title}) in the cache",
        hint="get the source RPM from the distribution's vault, then "
        "`fsdeploy source add PATH` or `--source PATH`",
    )


def fingerprint(tree: Path) -> str:
    """Changes when a file of the tree was written, made or removed; reads no content."""
    total = hashlib.sha256()
    for path in files(tree):
        status = path.lstat()
        total.update(
            os.fsencode(path.relative_to(tree))
            + f" {status.st_size} {status.st_mtime_ns}\n".encode()
        )
    return total.hexdigest()


def require_intact(source: Source) -> None:
    """Refuse a cached tree that something has written to.

    Builds hard-link it. A step that writes a source file in place instead of replacing it would
    change the source of every later build; better to stop.
    """
    seal = source.directory / "tree.seal"
    if seal.is_file() and seal.read_text(encoding="ascii") == fingerprint(source.tree):
        return
    raise FsdeployError(
        f"the cached source {source.name} has been changed since it was unpacked",
        hint=f"`fsdeploy source remove {source.directory.name}` and add it again",
    )


def _load(folder: Path) -> Source | None:
    try:
        data = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        return Source(
            directory=folder,
            kind=cast(Kind, data["kind"]),
            version=data["version"],
            release=data["release"],
            digest=data["digest"],
            origin=data["origin"],
            epoch=int(data["epoch"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(source: Source, folder: Path) -> None:
    data = {key: value for key, value in asdict(source).items() if key != "directory"}
    store.write_atomically(
        folder / "source.json", json.dumps(data, indent=2, sort_keys=True) + "\n"
    )


def _age(source: Source) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", source.name)], source.digest


def _sweep() -> None:
    """Remove what killed processes left."""
    for partial in cache().glob(".partial-*"):
        lock = cache() / f"{partial.name.removeprefix('.partial-')}.lock"
        if not store.is_held(lock):
            store.remove_tree(partial)


def _epoch(identity: Identity, folder: Path) -> int:
    # The times in an archive are part of what its hash covers; those of a tree are not.
    return 0 if identity.kind == "tree" else int((folder / "tree/Makefile").stat().st_mtime)
