# SPDX-License-Identifier: GPL-2.0-only
"""What is remembered about lab hosts, and which processes are theirs.

A process is a host's when it is a QEMU whose command line names that host's own pid file. A number
remembered from its start would prove nothing: it may be another process's by now, or was never
written down by a command that got killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fsdeploy import paths, ui
from fsdeploy.errors import FsdeployError

# Raise when the fields change in a way that older files cannot be read.
_FORMAT = 1

STARTING = "starting"  # being made by a `lab up` that has not come to its end
READY = "ready"  # has answered on SSH once


@dataclass(frozen=True)
class HostRecord:
    """One lab host. `host_key` is public; the rest is what its QEMU is started with."""

    name: str
    phase: str
    image: str
    disk: str
    kernels: tuple[str, ...]
    boot_loader: str
    cpus: int
    memory_mib: int
    port: int
    mac: str
    host_key: str

    @property
    def folder(self) -> Path:
        """The host's own files."""
        return lab_folder() / self.name

    @property
    def serial(self) -> Path:
        """The log of its console."""
        return self.folder / "console.log"

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.folder / "qmp"

    @property
    def pid_file(self) -> Path:
        """Named on QEMU's command line: what makes a process this host's."""
        return self.folder / "pid"


def lab_folder() -> Path:
    """Where the lab of this user and state folder lives."""
    return paths.state_dir() / "lab"


def load() -> tuple[HostRecord, ...]:
    """All hosts there are, whether they run or not."""
    file = lab_folder() / "hosts.json"
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as problem:
        raise FsdeployError(
            f"{file} is not a record of lab hosts: {problem}",
            hint=f"end what runs, then remove the folder {file.parent}",
        ) from problem


def parse(text: str) -> tuple[HostRecord, ...]:
    """Hosts from the text of hosts.json; ValueError, KeyError or TypeError when it is not one."""
    document = json.loads(text)
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']}, {_FORMAT} was expected")
    return tuple(
        HostRecord(**{**host, "kernels": tuple(host["kernels"])}) for host in document["hosts"]
    )


def render(hosts: tuple[HostRecord, ...]) -> str:
    """The text of hosts.json."""
    return (
        json.dumps({"format": _FORMAT, "hosts": [asdict(host) for host in hosts]}, indent=2) + "\n"
    )


def save(hosts: tuple[HostRecord, ...]) -> None:
    """Remember the hosts; a reader sees the old or the new record, never half of one."""
    write(lab_folder() / "hosts.json", render(hosts))


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(path)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One command at a time changes a lab; another one waits."""
    folder = lab_folder()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ui.note("Another fsdeploy lab command is at work; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def command_line_of(pid: int) -> tuple[str, ...]:
    """The argument list of a process; empty when it is gone, a zombie or a thread of the kernel."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in data.rstrip(b"\0").split(b"\0")) if data else ()


def belongs(words: tuple[str, ...], pid_file: Path) -> bool:
    """Whether a command line is the QEMU of the host with this pid file."""
    if not words or not Path(words[0]).name.startswith("qemu-system-"):
        return False
    return any(
        word == "-pidfile" and value == str(pid_file) for word, value in itertools.pairwise(words)
    )


def processes_of(pid_file: Path) -> tuple[int, ...]:
    """Processes of a host: there is one or none, and more only after something went wrong."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return tuple(pid for pid in numbers if belongs(command_line_of(pid), pid_file))


def is_running(record: HostRecord) -> bool:
    """Whether the host's power is on."""
    return bool(processes_of(record.pid_file))


def end_process(pid: int, pid_file: Path, grace: float = 5) -> None:
    """End a host's QEMU by signals; nothing happens to a process that is not the host's."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle is of the process that has the number now: look whose it is, then signal it.
        if not belongs(command_line_of(pid), pid_file):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], grace)[0]:
                return
    finally:
        os.close(handle)


def works_in(pid: int, folder: Path) -> bool:
    """Whether a process has a folder's files on its command line, or as its root or current one."""
    inside = f"{folder}/"
    if any(inside in word for word in command_line_of(pid)):
        return True
    for link in ("root", "cwd"):
        with contextlib.suppress(OSError):
            if f"{Path(f'/proc/{pid}/{link}').readlink()}/".startswith(inside):
                return True
    return False


def end_all_in(folder: Path) -> None:
    """End at once every other process that works in a folder which is ours alone."""
    while True:
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        found = [pid for pid in numbers if pid != os.getpid() and works_in(pid, folder)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    if works_in(pid, folder):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        select.select([handle], [], [], 5)
                finally:
                    os.close(handle)


def wait_gone(pid_file: Path, seconds: float) -> bool:
    """Whether no process of the host is left, waiting for it at most `seconds`."""
    deadline = time.monotonic() + seconds
    while processes_of(pid_file):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
