# SPDX-License-Identifier: GPL-2.0-only
"""What the programs here share. They run on the disk of a quick guest, started by enter.c.

A program imports this, defines tests with `@test`, and calls `main()`, which runs them in order and
reports in KTAP. A test starts a server by `Server`, which puts `fsocket-run` in front, and lets
`load.c` ask it for something; `measured()` around all that checks what is true of every server:
nothing is left in the kernel, which had nothing to say, and Fastsocket had its part in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BROUGHT = Path("/guest")
# For servers that ask a newer kernel for something.
NEWER = {"LD_PRELOAD": str(BROUGHT / "newer.so")}
FACTOR = float(os.environ.get("FSDEPLOY_TIME_FACTOR", "1"))
CONNECTIONS = int(os.environ.get("SERVERS_CONNECTIONS", "3000"))
# Servers as they are, on a kernel without the module: to compare with.
PLAIN = os.environ.get("SERVERS_PLAIN") == "1"
CPUS = os.sysconf("SC_NPROCESSORS_ONLN")
BODY = "fine\n"

# Seconds that a busy machine may need for a connection.
_SLOWEST = 0.05
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TEST_LIMIT = 120

_SLABS = (
    *("sock_inode_cache", "TCP", "TCPv6", "UNIX", "request_sock_TCP", "tcp_bind_bucket"),
    *("dentry", "filp", "eventpoll_epi", "eventpoll_pwq", "fsnotify_event", "task_struct"),
)
# What the kernel says that is no complaint: this report, our module's banner, and what it thinks of
# the clocks of a virtual machine that had to wait for its turn.
_HARMLESS = re.compile(r"ktap: |Fastsocket: |Clocksource tsc unstable|hrtimer: interrupt took")

_tests: list[Callable[[], None]] = []


class Wrong(Exception):
    """A test found something wrong."""


def test(function: Callable[[], None]) -> Callable[[], None]:
    """Have `main` run a function."""
    _tests.append(function)
    return function


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for whoever reads the log."""
    for line in text.splitlines():
        _say(f"# {line}")


def check(right: bool, text: str) -> None:
    """End the test unless something is as it should be."""
    if not right:
        raise Wrong(text)


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait for a condition; the test ends when it does not come about."""
    deadline = time.monotonic() + seconds * FACTOR
    while not condition():
        check(time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.01)


def limit(connections: int = CONNECTIONS) -> float:
    """Seconds for that many connections and what is around them."""
    return FACTOR * (_TEST_LIMIT + _SLOWEST * connections)


def _expired(_number: int, _frame: object) -> None:
    raise Wrong("took too long")


def main() -> None:
    """Run the tests; ends the program."""
    _set_up()
    _say(f"KTAP version 1\n1..{len(_tests)}")
    failed = 0
    signal.signal(signal.SIGALRM, _expired)
    for number, function in enumerate(_tests, start=1):
        signal.alarm(round(limit()))
        word = "ok"
        try:
            function()
        except Exception as wrong:
            word = "not ok"
            failed += 1
            note(str(wrong) if isinstance(wrong, Wrong) else traceback.format_exc())
        signal.alarm(0)
        _say(f"{word} {number} - {function.__name__}")
    raise SystemExit(min(failed, 1))


def _set_up() -> None:
    os.environ["PATH"] = _PATH
    # Who looks is not to wait for those who serve and ask.
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    shutil.copy(BROUGHT / "fsocket-run", "/usr/bin")
    shutil.copy(BROUGHT / "libfsocket.so", "/usr/lib64")
    for name, value in (
        ("net/core/somaxconn", 4096),
        ("net/ipv4/tcp_max_syn_backlog", 4096),
        ("net/ipv4/tcp_max_tw_buckets", 500000),
        ("net/ipv4/ip_local_port_range", "10240 65535"),
    ):
        Path("/proc/sys", name).write_text(f"{value}\n")


# --- processes ---


def _state(pid: int) -> str:
    """What a process does that does not do what it should."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        named = [
            line.replace("\t", " ") for line in status if line.startswith(("State", "Sig", "Shd"))
        ]
        return f"{pid} in {Path(f'/proc/{pid}/wchan').read_text()}: {', '.join(named)}"
    return f"{pid} is gone"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _be_ordinary() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Of each that lives, zombies not counted: its number, its parent's and its session's."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (path / "stat").read_text().rpartition(")")[2].split(maxsplit=4)
                if words[0] not in "ZX":
                    yield int(path.name), int(words[1]), int(words[3])


def children(parent: int) -> set[int]:
    """The living processes that a process started."""
    return {pid for pid, its_parent, _ in _processes() if its_parent == parent}


def tasks(pid: int) -> list[int]:
    """The threads of a process."""
    return sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())


def is_stopped(pid: int) -> bool:
    """Whether a process does nothing because of SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def is_mapped(pid: int) -> bool:
    """Whether a process has the library."""
    return "/usr/lib64/libfsocket.so" in Path(f"/proc/{pid}/maps").read_text()


_LISTENING, _HANDSHAKE = "0A", "03"


def _listening() -> Iterator[list[str]]:
    """The rows of listening sockets in the kernel's tables."""
    for name in ("tcp", "tcp6"):
        with Path("/proc/net", name).open() as rows:
            next(rows)
            # They stand first; the thousands in TIME-WAIT behind take long to read.
            for words in map(str.split, rows):
                if words[3] not in (_LISTENING, _HANDSHAKE):
                    break
                if words[3] == _LISTENING:
                    yield words


def connections_of(pid: int) -> int:
    """TCP connections that a stopped process has accepted or made, and not closed."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = str(path.readlink())
            if name.startswith("socket:["):
                sockets.add(name[len("socket:[") : -1])
    others = {words[9] for words in _listening()}
    others |= {row.split()[6] for row in Path("/proc/net/unix").read_text().splitlines()[1:]}
    return len(sockets - others)


def listeners(port: int) -> int:
    """Listening sockets on a port, clones too."""
    return sum(words[1].endswith(f":{port:04X}") for words in _listening())


class Server:
    """A server, under fsocket-run unless they are PLAIN, for the length of a block.

    One that goes into the background leaves its number in `pid_file`.
    """

    def __init__(
        self,
        port: int,
        *words: str | Path,
        pid_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self._pid_file = pid_file
        self._log = Path(f"/tmp/server-{port}.log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words if PLAIN else ["fsocket-run", *words],
                env={**os.environ, "FSOCKET_REQUIRE": "1", **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_be_ordinary,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        try:
            if self._pid_file:
                self.pid = self._daemon(self._pid_file)
            until(lambda: listeners(self.port) > 0 or not self.runs(), "the server listens")
            check(self.runs(), "the server ended at once")
        except BaseException:
            self.__exit__(Wrong)
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        if reason and reason[0]:
            note("\n".join(self._log.read_text(errors="replace").splitlines()[-20:]))
            for pid in sorted(self.session()):
                note(_state(pid))
        try:
            for pid in self.session():
                _signal(pid, signal.SIGTERM)
            until(lambda: not self.session(), "the server ends")
        finally:
            for pid in self.session():
                _signal(pid, signal.SIGKILL)
            self._process.wait()

    def _daemon(self, pid_file: Path) -> int:
        check(self._process.wait() == 0, "the server did not start")
        until(pid_file.exists, f"{pid_file} is there")
        return int(pid_file.read_text())

    def runs(self) -> bool:
        """Whether its first process lives."""
        return any(pid == self.pid for pid, _, _ in _processes())

    def said(self, text: str) -> int:
        """How often it said something."""
        return self._log.read_text(errors="replace").count(text)

    def session(self) -> set[int]:
        """All its processes that live; their parents may have ended."""
        # A daemon has a session of its own.
        return {pid for pid, _, session in _processes() if session == self.pid}

    def workers(self, count: int) -> set[int]:
        """Its first process's children, once there are so many."""
        until(lambda: len(children(self.pid)) == count, f"{count} workers")
        return children(self.pid)


# --- connections ---

ROUNDS = 3
_ENDLESS = 1 << 40


@dataclass(frozen=True)
class Answers:
    """What came of a load."""

    counts: Mapping[str, int]
    workers: Mapping[int, int]
    seconds: float

    @property
    def done(self) -> int:
        return self.counts["done"]

    @property
    def failed(self) -> int:
        """Requests that were not answered, for whatever reason."""
        return sum(count for name, count in self.counts.items() if name not in ("done", "slow"))

    def __str__(self) -> str:
        named = " ".join(f"{name}={count}" for name, count in self.counts.items() if count)
        served = " ".join(str(count) for _, count in sorted(self.workers.items()))
        return f"{named} in {self.seconds:.1f} s; by worker: {served or 'not told'}"


class Load:
    """Connections to a port, going on in the background."""

    def __init__(self, port: int, count: int = _ENDLESS) -> None:
        self._began = time.monotonic()
        words: list[str | Path] = [BROUGHT / "load", str(port), str(count), str(round(limit()))]
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, preexec_fn=_be_ordinary
        )

    def rounds(self, *, accepts: int = 1) -> Iterator[int]:
        """Something to do again and again while the connections go on: not less than ROUNDS.

        A connection through a proxy is accepted more than once.
        """
        for number in itertools.count():
            if number >= ROUNDS and accepted() >= accepts * CONNECTIONS:
                return
            # Some in between, so that each time meets a server that serves, and of many
            # connections so many that they are not as many times slower.
            least = accepted() + accepts * max(16 * CPUS, CONNECTIONS // 100)
            until(lambda: accepted() >= least, "connections are accepted")  # noqa: B023
            yield number

    def stop(self) -> Answers:
        """Begin no more, and wait for the end. All that were begun must be answered."""
        self._process.terminate()
        return self.answers()

    def answers(self) -> Answers:
        """Wait for the end."""
        output, _ = self._process.communicate()
        check(self._process.returncode == 0, f"the load ended with {self._process.returncode}")
        counts: dict[str, int] = {}
        workers: dict[int, int] = {}
        for line in output.splitlines():
            match line.split():
                case ["worker", number, count]:
                    workers[int(number)] = workers.get(int(number), 0) + int(count)
                case [name, count]:
                    counts[name] = int(count)
        answers = Answers(counts, workers, time.monotonic() - self._began)
        note(str(answers))
        return answers


def all_answered(port: int, count: int = CONNECTIONS) -> Answers:
    """Make connections; each must be answered."""
    answers = Load(port, count).answers()
    check(answers.done == count, f"of {count}: {answers}")
    return answers


def none_lost(load: Load) -> Answers:
    """Stop a load; each of its connections must have been answered."""
    answers = load.stop()
    check(answers.failed == 0, str(answers))
    check(answers.done >= CONNECTIONS, f"too few to tell: {answers}")
    return answers


def cores(pids: set[int]) -> list[int]:
    """The cores that tasks are bound to, in order; those that are not bound left out."""
    bound = [os.sched_getaffinity(pid) for pid in pids]
    return sorted(min(one) for one in bound if len(one) == 1)


def need_bound(pids: set[int]) -> None:
    """Each on a core of its own."""
    until(lambda: cores(pids) == list(range(CPUS)), "each worker is bound to its core")


def kill_under(load: Load, server: Server, workers: int) -> None:
    """Kill workers, which the server replaces; requests may be lost that they had accepted."""
    had = 0
    for _ in load.rounds():
        victim = min(children(server.pid))
        # Stopped, it accepts no more: what it has is what may be lost.
        os.kill(victim, signal.SIGSTOP)
        until(lambda: is_stopped(victim), "the worker is stopped")  # noqa: B023
        had += connections_of(victim)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in children(server.pid), "the worker is gone")  # noqa: B023
        server.workers(workers)
    answers = load.stop()
    note(f"the killed ones had accepted {had}")
    check(answers.failed <= had, f"of those {had} had been accepted: {answers}")
    check(answers.done + answers.failed >= CONNECTIONS, f"too few to tell: {answers}")


# --- the kernel ---


def table(name: str) -> list[dict[str, int]]:
    """A table of counters in /proc/net, a row a CPU."""
    head, *rows = Path("/proc/net", name).read_text().splitlines()
    return [dict(zip(head.split(), map(int, row.split()), strict=True)) for row in rows]


def total(name: str, column: str) -> int:
    """A counter of all CPUs."""
    return sum(row[column] for row in table(name))


@contextlib.contextmanager
def switched_on(*names: str) -> Iterator[None]:
    """The module's parameters of these names are 1 for the length of a block."""
    switches = [Path("/sys/module/fastsocket/parameters", name) for name in names]
    before = [switch.read_text() for switch in switches]
    try:
        for switch in switches:
            switch.write_text("1\n")
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.write_text(value)


def accepted() -> int:
    """Connections accepted since `measured` began."""
    return sum(row[name] for row in table("hash_stat") for name in row if name.endswith("_accept"))


def _kernel_log() -> list[str]:
    buffer = ctypes.create_string_buffer(4 << 20)
    length = ctypes.CDLL(None).klogctl(3, buffer, len(buffer))
    check(length >= 0, "no kernel log")
    return buffer.raw[:length].decode(errors="replace").splitlines()


@dataclass(frozen=True)
class Kernel:
    """What the kernel holds at a time."""

    slabs: Mapping[str, int]
    slack: Mapping[str, int]
    sockets: str
    references: int

    @staticmethod
    def now() -> Kernel:
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        slabs: dict[str, int] = {}
        slack: dict[str, int] = {}
        for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
            words = line.split()
            if words[0] in _SLABS:
                # name active … : tunables limit batchcount sharedfactor : …
                most, batch, shared = map(int, words[8:11])
                slabs[words[0]] = int(words[1])
                # Freed objects that are kept at hand count as active.
                slack[words[0]] = CPUS * most + batch * shared
        # TIME-WAIT ("tw") goes by itself; "alloc" has every struct sock of TCP.
        tcp = Path("/proc/net/sockstat").read_text().split("TCP: ")[1].split()
        named = dict(zip(tcp[::2], tcp[1::2], strict=False))
        sockets = " ".join(f"{name}={named[name]}" for name in ("inuse", "orphan", "alloc"))
        references = Path("/sys/module/fastsocket/refcnt").read_text()
        return Kernel(slabs, slack, sockets, int(references))

    def leaked(self, before: Kernel) -> list[str]:
        """What there is more of than there was."""
        found = [
            f"{name} {before.slabs[name]} -> {count}"
            for name, count in self.slabs.items()
            if count > before.slabs[name] + self.slack[name]
        ]
        if self.sockets != before.sockets:
            found.append(f"sockets {before.sockets} -> {self.sockets}")
        if self.references != before.references:
            found.append(f"module in use {before.references} -> {self.references}")
        return found


@dataclass
class Seen:
    """What `measured` saw; filled when its block ends."""

    hash_stat: Sequence[Mapping[str, int]] = field(default_factory=list)
    stats: Mapping[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def measured(*, everywhere: bool = True) -> Iterator[Seen]:
    """Servers and their load, from start to end.

    Of the block it checks that no object, socket or use of the module is left, that the kernel said
    nothing, and that clones were made; with `everywhere` that every core accepted from its own.
    """
    seen = Seen()
    before, log = Kernel.now(), len(_kernel_log())
    for name in ("hash_stat", "fsocket_stats", "steer_stat"):
        Path("/proc/net", name).write_text("0\n")
    yield seen
    seen.hash_stat = table("hash_stat")
    stats = table("fsocket_stats")
    seen.stats = {name: sum(row[name] for row in stats) for name in stats[0] if name != "CPU"}
    for row in seen.hash_stat:
        note("hash_stat " + " ".join(f"{name}={count}" for name, count in row.items()))
    note("fsocket_stats " + " ".join(f"{name}={count}" for name, count in seen.stats.items()))
    leaked: list[str] = ["not looked"]

    def is_clean() -> bool:
        leaked[:] = Kernel.now().leaked(before)
        return not leaked

    try:
        until(is_clean, "the kernel holds what it held before")
    except Wrong:
        raise Wrong(f"left in the kernel: {'; '.join(leaked)}") from None
    after = Kernel.now()
    note(
        "slabs "
        + " ".join(f"{name}={before.slabs[name]}->{after.slabs[name]}" for name in after.slabs)
    )
    said = [line for line in _kernel_log()[log:] if not _HARMLESS.search(line)]
    check(not said, "the kernel said: " + "\n".join(said))
    check(seen.stats["Spawned"] > 0, "nobody got a clone")
    check(
        not everywhere or all(row["Loc_accept"] for row in seen.hash_stat),
        "a core accepted nothing from its own clone",
    )
