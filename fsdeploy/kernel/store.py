# SPDX-License-Identifier: GPL-2.0-only
"""What sources and builds have in common: locks, free space, folders that appear whole or not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import FsdeployError

GIB = 1024**3


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; wait, saying for whom, while another process holds it.

    It is an flock: the kernel lets it go when its holder dies, however it dies, so a lock file
    that lies around means nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            ui.note(f"{what} is in the hands of process {holder}; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether some process holds this lock."""
    if not path.exists():
        return False
    with path.open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def free_space(folder: Path) -> int:
    """Bytes free for us where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: int, what: str, place: str = "XDG_CACHE_HOME") -> None:
    """Stop before work that would fill the disk; `place` is what a user names another one with."""
    free = free_space(folder)
    if free < needed:
        raise FsdeployError(
            f"not enough space for {what}: it takes about {needed / GIB:.1f} GiB, "
            f"{free / GIB:.1f} GiB are free at {folder}",
            hint=f"free some space, or name another place in {place}",
        )


@contextlib.contextmanager
def full_disk_named(folder: Path, what: str, place: str = "XDG_CACHE_HOME") -> Iterator[None]:
    """Turn a full disk, ours or a tool's, into an error that says so."""
    try:
        yield
    except (OSError, FsdeployError) as problem:
        if not says_full(problem):
            raise
        log = problem.log if isinstance(problem, FsdeployError) else None
        raise FsdeployError(
            f"the disk is full: {what} found no more space at {folder}",
            hint=f"free some space, or name another place in {place}; then run it again",
            log=log,
        ) from problem


def says_full(problem: Exception) -> bool:
    """Whether an error, ours or in a tool's output, is that of a full disk."""
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # A tool says it in its output (C locale), shutil.copytree in a list of strings.
    return any(
        text in str(problem)
        for text in ("No space left on device", "Disk quota exceeded", "[Errno 28]")
    )


@contextlib.contextmanager
def appearing(final: Path) -> Iterator[Path]:
    """A folder to fill that becomes `final` at the end of the block, or vanishes.

    For a caller that holds the lock for `final`: what a killed process left is removed first.
    """
    partial = final.with_name(f".partial-{final.name}")
    remove_tree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        remove_tree(final)
        partial.rename(final)
    except BaseException:
        remove_tree(partial)
        raise


def remove_tree(folder: Path) -> None:
    """Remove a folder if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is old or new, never half; hard links to the old one keep the old text."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8", errors="surrogateescape")
    if path.exists():
        fresh.chmod(path.stat().st_mode & 0o7777)
    fresh.replace(path)
