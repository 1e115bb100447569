# SPDX-License-Identifier: GPL-2.0-only
"""What the library does to programs, with a stand-in for the device and without any."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import HERE, Runner

NAMES = re.findall(r"SCENARIO\((\w+)\),", (HERE / "scenarios.c").read_text())
# Those that want the device to behave in a special way, or two CPUs, are run by name below.
SPECIAL = {
    "a_channel_lost_for_good_is_said_once",
    "a_refused_spawn_changes_nothing",
    "what_a_pinned_task_makes_is_not_pinned",
}
# Those whose expectation is a spawn and no more can't hold without the device.
WITHOUT = ["strange_numbers_are_bad_descriptors", "others_are_not_spawned"]
UNUSED = "; going on without Fastsocket\n"
MISSING = f"libfsocket: /dev/fastsocket: no such device (is the module loaded?){UNUSED}"

Calls = Callable[[str], list[list[str]]]

LISTEN = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    client.sendall(b"hello")
    print(accepted.recv(5).decode())
    if os.fork() == 0:
        server.listen(5)
        os._exit(0)
    os.wait()
"""

THREADED = """
import socket, socketserver, threading
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number in range(20):
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"%d\\n" % number)
            assert client.makefile().readline() == f"{number}\\n"
    server.shutdown()
print("served")
"""

ASYNCIO = """
import asyncio, sys
async def serve(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for number in range(20):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"%d\\n" % number)
        assert await reader.readline() == b"%d\\n" % number
        writer.close()
        if number % 10 == 0:
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
            assert await child.wait() == 0
    server.close()
asyncio.run(main())
print("served")
"""

PREFORK = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    workers = []
    for _ in range(3):
        workers.append(os.fork())
        if workers[-1] == 0:
            while True:
                connection, _ = server.accept()
                with connection:
                    word = connection.recv(4)
                    connection.sendall(b"%d" % os.getpid())
                if word == b"stop":
                    os._exit(0)
    for word in (b"more", b"more", b"more", b"stop", b"stop", b"stop"):
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(word)
            assert int(client.recv(16)) in workers
    for _ in workers:
        assert os.wait()[1] == 0
print("served", os.getpid())
"""


def test_every_scenario_is_run(preloaded: Runner, scenarios: Path) -> None:
    listed = preloaded(scenarios)
    assert listed.stdout.split() == NAMES
    assert len(NAMES) > 30
    assert set(NAMES) >= SPECIAL | set(WITHOUT)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SPECIAL])
def test_scenario(preloaded: Runner, scenarios: Path, name: str) -> None:
    ended = preloaded(scenarios, name)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("error", ["EBUSY", "EOPNOTSUPP", "EPERM"])
def test_a_module_that_refuses_leaves_the_plain_listener(
    preloaded: Runner, scenarios: Path, error: str
) -> None:
    number = str(getattr(errno, error))
    ended = preloaded(scenarios, "a_refused_spawn_changes_nothing", SPAWN_ERRNO=number)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_channel_lost_for_good_is_said_once(preloaded: Runner, scenarios: Path) -> None:
    ended = preloaded(scenarios, "a_channel_lost_for_good_is_said_once")
    assert ended.stderr == f"libfsocket: /dev/fastsocket: permission denied{UNUSED}"
    assert ended.returncode == 0
    required = preloaded(scenarios, "a_channel_lost_for_good_is_said_once", FSOCKET_REQUIRE="1")
    assert required.returncode == 69
    assert required.stderr.endswith("permission denied; FSOCKET_REQUIRE is set, stopping\n")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="pinning to one CPU of one shows not")
def test_what_a_pinned_task_makes_is_not_pinned(preloaded: Runner, scenarios: Path) -> None:
    ended = preloaded(scenarios, "what_a_pinned_task_makes_is_not_pinned", DEVICE_PINS="1")
    assert (ended.returncode, ended.stderr) == (0, "")


# --- without the device ---


@pytest.mark.parametrize("name", WITHOUT)
def test_without_the_device_calls_are_plain(
    preloaded: Runner, scenarios: Path, calls: Calls, name: str
) -> None:
    ended = preloaded(scenarios, name, DEVICE_ERRNO="2", FSOCKET_QUIET="1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert calls("spawn") == []


@pytest.mark.skipif(Path("/dev/fastsocket").exists(), reason="there is a device on this machine")
def test_without_the_real_device_a_server_says_so_once_and_serves(preloaded: Runner) -> None:
    ended = preloaded(sys.executable, "-c", LISTEN, fake=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\n", MISSING)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"DEVICE_ERRNO": "2"}, ": no such device (is the module loaded?)"),
        ({"DEVICE_ERRNO": "19"}, ": no such device"),
        ({"DEVICE_ERRNO": "13"}, ": permission denied"),
        ({"DEVICE_VERSION": "2"}, ": not a version this library knows"),
        ({"DEVICE_VERSION": "0"}, ": not a version this library knows"),
        ({"DEVICE_VERSION": "-1"}, ": not a version this library knows"),
    ],
)
def test_a_device_that_cannot_be_used(
    preloaded: Runner, calls: Calls, settings: dict[str, str], reason: str
) -> None:
    ended = preloaded(sys.executable, "-c", LISTEN, **settings)
    said = f"libfsocket: /dev/fastsocket{reason}"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hello\n", said + UNUSED)

    quiet = preloaded(sys.executable, "-c", LISTEN, FSOCKET_QUIET="1", **settings)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "hello\n", "")

    required = preloaded(
        sys.executable, "-c", LISTEN, FSOCKET_REQUIRE="1", FSOCKET_QUIET="1", **settings
    )
    assert (required.returncode, required.stdout) == (69, "")
    assert required.stderr == f"{said}; FSOCKET_REQUIRE is set, stopping\n"
    assert calls("spawn") == []


def test_a_program_that_does_not_listen_is_told_nothing(preloaded: Runner) -> None:
    ended = preloaded("sh", "-c", "echo fine", DEVICE_ERRNO="2")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")


def test_zero_is_not_set(preloaded: Runner) -> None:
    ended = preloaded(
        sys.executable, "-c", LISTEN, DEVICE_ERRNO="2", FSOCKET_QUIET="0", FSOCKET_REQUIRE="0"
    )
    assert (ended.returncode, ended.stderr) == (0, MISSING)


# --- real programs ---


@pytest.mark.parametrize("settings", [{}, {"DEVICE_PINS": "1"}, {"SPAWN_ERRNO": "16"}])
@pytest.mark.parametrize("program", [THREADED, ASYNCIO])
def test_a_server_serves_and_spawns_once(
    preloaded: Runner, calls: Calls, program: str, settings: dict[str, str]
) -> None:
    ended = preloaded(sys.executable, "-c", program, **settings)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "served\n", "")
    assert len(calls("spawn")) == 1


@pytest.mark.parametrize("program", [THREADED, ASYNCIO, PREFORK])
def test_a_server_serves_without_the_device(preloaded: Runner, program: str) -> None:
    ended = preloaded(sys.executable, "-c", program, DEVICE_ERRNO="2")
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "served")
    assert ended.stderr == MISSING


def test_each_preforked_worker_spawns_and_the_parent_does_not(
    preloaded: Runner, calls: Calls
) -> None:
    ended = preloaded(sys.executable, "-c", PREFORK)
    assert (ended.returncode, ended.stderr) == (0, "")
    word, parent = ended.stdout.split()
    owners = [line[0] for line in calls("spawn")]
    assert word == "served"
    assert len(owners) == len(set(owners)) == 3
    assert parent not in owners
