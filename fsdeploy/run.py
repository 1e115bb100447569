# SPDX-License-Identifier: GPL-2.0-only
"""The only place that starts a process.

Argument lists only, an explicit environment, an optional log file and timeout. Every child leads a
process group of its own, and the whole group ends with it: on a timeout, on Ctrl-C and on any other
exception, so that no compiler, guest or ssh outlives the command that wanted it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from fsdeploy.errors import FsdeployError

# What a child sees of our environment; everything else is passed by name. LC_ALL=C because
# messages of tools are read, TZ=UTC because time stamps end up in what is built.
_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "TERM",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
    "CCACHE_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

# Package that brings a tool: (Debian, CentOS/RHEL).
PACKAGES: Mapping[str, tuple[str, str]] = {
    "as": ("binutils", "binutils"),
    "bc": ("bc", "bc"),
    "bison": ("bison", "bison"),
    "bzip2": ("bzip2", "bzip2"),
    "ccache": ("ccache", "ccache"),
    "cpio": ("cpio", "cpio"),
    "createrepo_c": ("createrepo-c", "createrepo_c"),
    "debugfs": ("e2fsprogs", "e2fsprogs"),
    "flex": ("flex", "flex"),
    "gcc": ("gcc", "gcc"),
    "git": ("git", "git"),
    "gpg": ("gpg", "gnupg2"),
    "gpg-agent": ("gpg-agent", "gnupg2"),
    "ld": ("binutils", "binutils"),
    "make": ("make", "make"),
    "mke2fs": ("e2fsprogs", "e2fsprogs"),
    "mmdebstrap": ("mmdebstrap", "mmdebstrap"),
    "patch": ("patch", "patch"),
    "perl": ("perl", "perl"),
    "qemu-img": ("qemu-utils", "qemu-img"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-kvm"),
    "readelf": ("binutils", "binutils"),
    "rpm": ("rpm", "rpm"),
    "rpm2cpio": ("rpm2cpio", "rpm"),
    "rpmbuild": ("rpm", "rpm-build"),
    "rpmsign": ("rpm", "rpm-sign"),
    "sfdisk": ("fdisk", "util-linux"),
    "ssh": ("openssh-client", "openssh-clients"),
    "ssh-keygen": ("openssh-client", "openssh-clients"),
    "sshd": ("openssh-server", "openssh-server"),
    "tar": ("tar", "tar"),
    "tune2fs": ("e2fsprogs", "e2fsprogs"),
    "xz": ("xz-utils", "xz"),
}


# A child that is still ours to end, for signatures of those that may not know subprocess.
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Result:
    """How a process ended. `output` is stdout and stderr as one text; `seconds` is wall time."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    seconds: float


class CommandFailed(FsdeployError):
    """A process that ended with a code it should not, or did not end in time."""

    def __init__(self, message: str, *, result: Result, hint: str = "", log: Path | None = None):
        super().__init__(message, hint=hint, log=log)
        self.result = result


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: a few names of ours, C locale, UTC, then `extra`."""
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env.update({"LC_ALL": "C", "TZ": "UTC"})
    env.update(extra or {})
    return env


def find(tool: str) -> str | None:
    """Path of a tool, or None. /sbin is looked at too: a user's PATH often lacks it."""
    path = os.environ.get("PATH", "")
    return shutil.which(tool, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def require(*tools: str) -> None:
    """Stop before anything is done when tools are missing, naming the packages that bring them."""
    missing = [tool for tool in tools if find(tool) is None]
    if not missing:
        return
    raise FsdeployError(
        f"missing tool{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
        hint=how_to_install(missing),
    )


def how_to_install(tools: Iterable[str]) -> str:
    """The commands that bring tools to a machine."""
    names = [PACKAGES.get(tool, (tool, tool)) for tool in tools]
    debian = sorted({debian for debian, _ in names})
    centos = sorted({centos for _, centos in names})
    return f"Debian: apt-get install {' '.join(debian)}; CentOS: yum install {' '.join(centos)}"


def _child_setup() -> None:
    # The kernel ends the child when we are killed without a chance to do it ourselves.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _resolve(argv: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in argv]
    if "/" not in words[0]:
        found = find(words[0])
        if found is None:
            require(words[0])
        words[0] = found or words[0]
    return words


def start(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.STDOUT,
    outlive: bool = False,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a process that the caller ends with `end`.

    `outlive` is for a machine that goes on after the command that started it (`fsdeploy lab up`);
    all others get SIGTERM from the kernel when this process dies. Note that the signal is bound to
    the starting *thread*: call this from a thread that lives as long as the child should.
    """
    return subprocess.Popen(
        _resolve(argv),
        cwd=cwd,
        env=environment(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=None if outlive else _child_setup,
        pass_fds=pass_fds,
    )


def replace(argv: Sequence[str | Path]) -> NoReturn:
    """Become another program, terminal and all; for one that talks to the user (`ssh`).

    It gets our whole environment: it is the user's program then.
    """
    words = _resolve(argv)
    os.execv(words[0], words)


def wait(process: Process, seconds: float) -> int | None:
    """The code of a process that ends by itself, None when it did not within `seconds`."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def end(process: Process, *, grace: float = 5.0) -> int:
    """End a process and its whole group: SIGTERM, then SIGKILL after `grace` seconds."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
        # The leader is gone; children that ignored SIGTERM are still in the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        break
    return process.returncode


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """Keep a process for the length of a block; it is ended on any way out."""
    try:
        yield process
    finally:
        end(process)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
    input_text: str | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    on_line: Callable[[str], None] | None = None,
    hint: str = "",
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run a process to its end.

    Output (stdout and stderr together) is returned, appended to `log` and given to `on_line` line
    by line as it comes. With `stdout` the standard output goes to that file as bytes and only
    stderr is captured. `timeout` is in seconds. A code other than 0 raises CommandFailed, with the
    last lines of the output, unless `check` is off.
    """
    began = time.monotonic()
    words = _resolve(argv)
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=environment(env),
        stdin=stdin or (subprocess.PIPE if input_text is not None else subprocess.DEVNULL),
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE if stdout else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_child_setup,
        pass_fds=pass_fds,
    )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    feeder: threading.Thread | None = None
    if input_text is not None:
        feeder = threading.Thread(target=_feed, args=(process.stdin, input_text), daemon=True)
        feeder.start()
    timer = threading.Timer(timeout, expire) if timeout is not None else None
    if timer:
        timer.start()
    captured = process.stderr if stdout else process.stdout
    assert captured is not None
    lines: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            record = (
                stack.enter_context(log.open("a", buffering=1, encoding="utf-8")) if log else None
            )
            if record:
                record.write(f"$ {' '.join(words)}\n")
            for raw in captured:
                line = raw.decode("utf-8", "replace")
                lines.append(line)
                if record:
                    record.write(line)
                if on_line:
                    on_line(line.rstrip("\n"))
        process.wait()
    except BaseException:
        end(process)
        raise
    finally:
        if timer:
            timer.cancel()
        captured.close()
    if feeder:
        feeder.join()
    result = Result(tuple(words), process.returncode, "".join(lines), time.monotonic() - began)
    if expired.is_set():
        raise CommandFailed(
            f"{Path(words[0]).name} did not end within {timeout:g} s",
            result=result,
            hint=hint,
            log=log,
        )
    if check and result.returncode != 0:
        tail = "".join(lines[-15:]).rstrip()
        raise CommandFailed(
            f"{Path(words[0]).name} ended with code {result.returncode}"
            + (f":\n{tail}" if tail else ""),
            result=result,
            hint=hint,
            log=log,
        )
    return result


def _feed(stream: IO[bytes] | None, text: str) -> None:
    assert stream is not None
    with contextlib.suppress(BrokenPipeError):
        stream.write(text.encode())
    with contextlib.suppress(BrokenPipeError):
        stream.close()
