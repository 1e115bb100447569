# SPDX-License-Identifier: GPL-2.0-only
"""An initramfs written in Python: needs no root, no tool, and is the same for the same entries.

The format is cpio's "newc", as Documentation/driver-api/early-userspace/buffer-format.rst of the
kernel describes it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class File:
    """A regular file."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Directory:
    """A folder; those on the way to an entry are made without being named."""

    mode: int = 0o755


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Device:
    """A device node, a character device unless `block`."""

    major: int
    minor: int
    mode: int = 0o600
    block: bool = False


Entry = File | Directory | Symlink | Device


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The archive of entries by absolute path, sorted, every folder before what is in it.

    Raises ValueError for a path that is not absolute or not in its shortest form, and for an entry
    below one that is no folder.
    """
    complete = _with_folders(entries)
    parts = [
        _record(number, path.lstrip("/"), complete[path])
        for number, path in enumerate(sorted(complete), start=1)
    ]
    parts.append(_header(0, _TRAILER, 0, 0, Device(0, 0)))
    return b"".join(parts)


def _with_folders(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    complete: dict[str, Entry] = {}
    for path in entries:
        if not path.startswith("/") or path == "/" or str(PurePosixPath(path)) != path:
            raise ValueError(f"not an absolute path in its shortest form: {path!r}")
        if ".." in path.split("/") or "\0" in path or path.startswith("//"):
            raise ValueError(f"not an absolute path in its shortest form: {path!r}")
        for parent in _parents(path):
            if not isinstance(entries.get(parent, Directory()), Directory):
                raise ValueError(f"{path!r} is below {parent!r}, which is no folder")
            complete.setdefault(parent, Directory())
    complete.update(entries)
    return complete


def _parents(path: str) -> Iterable[str]:
    return (str(parent) for parent in PurePosixPath(path).parents if str(parent) != "/")


def _record(number: int, name: str, entry: Entry) -> bytes:
    match entry:
        case File(data, mode):
            return _header(number, name, stat.S_IFREG | mode, len(data), None) + _padded(data)
        case Directory(mode):
            return _header(number, name, stat.S_IFDIR | mode, 0, None)
        case Symlink(target):
            data = target.encode()
            return _header(number, name, stat.S_IFLNK | 0o777, len(data), None) + _padded(data)
        case Device(_, _, mode, block):
            kind = stat.S_IFBLK if block else stat.S_IFCHR
            return _header(number, name, kind | mode, 0, entry)


def _header(number: int, name: str, mode: int, size: int, device: Device | None) -> bytes:
    name_bytes = name.encode() + b"\0"
    major, minor = (device.major, device.minor) if device else (0, 0)
    fields = (
        number,
        mode,
        *(0, 0),  # user, group
        2 if stat.S_ISDIR(mode) else 1,  # links
        0,  # time of change: the same archive whenever it is made
        size,
        *(0, 0),  # device the file was on
        *(major, minor),
        len(name_bytes),
        0,  # checksum, unused in this variant
    )
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode()
    return _padded(head + name_bytes)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
