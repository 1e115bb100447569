# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the Fastsocket module and of services under libfsocket, against what was applied.

The first line of each says what is true. After a rollback the expectation says what must be gone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from fsdeploy.verify.report import Expectation

_LIBRARY = "/libfsocket.so"
_DEVICE = "/dev/fastsocket"
_LISTEN = "0A"
_LISTENERS = "/proc/net/hash_stat"
_STEERED = "/proc/net/steer_stat"
# Connections that were accepted from a listener with a clone a core.
_FROM_CLONES = ("Loc_accept", "Rem_accept", "Glo_accept")
_PATIENCE = 5.0

# Every process of a name: a line "= PID", the links of its descriptors, its lines of the library.
# One command for all; `%s` is the name.
_LOOK = (
    "for d in /proc/[0-9]*; do"
    " read -r _ n 2>/dev/null <$d/status || continue; [ \"$n\" = '%s' ] || continue;"
    " [ -s $d/maps ] || grep -q . $d/maps 2>/dev/null || continue;"
    ' echo "= ${d#/proc/}"; ls -l $d/fd 2>/dev/null; grep libfsocket $d/maps; done; :'
)


@dataclass(frozen=True)
class Process:
    """A process of a service: its sockets, and whether the library is mapped.

    `current`: and is the one that is there now, not one that was replaced since.
    """

    pid: str
    sockets: frozenset[str]
    mapped: bool
    current: bool


def parse_processes(text: str) -> list[Process]:
    """From what `_LOOK` prints."""
    found = []
    for block in re.split(r"^= ", text, flags=re.MULTILINE)[1:]:
        pid, _, rest = block.partition("\n")
        mapped = [line for line in rest.splitlines() if _LIBRARY in line]
        found.append(
            Process(
                pid.strip(),
                frozenset(re.findall(r"socket:\[(\d+)\]", rest)),
                bool(mapped),
                any(not line.endswith("(deleted)") for line in mapped),
            )
        )
    return found


def parse_listening(text: str) -> dict[str, tuple[str, int]]:
    """From /proc/net/tcp: address and port by socket, of those that listen."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN:
            address, _, port = words[1].partition(":")
            number = [str(byte) for byte in reversed(bytes.fromhex(address))]
            found[words[9]] = (".".join(number), int(port, 16))
    return found


def parse_counters(text: str) -> dict[str, int]:
    """From a table of counters: the sum over all CPUs, by column."""
    head, *lines = text.splitlines()
    names = head.split()[1:]
    rows = [[int(word) for word in line.split()[1:]] for line in lines]
    return {name: sum(row[i] for row in rows) for i, name in enumerate(names)}


def _processes(machine: Any, name: str) -> list[Process]:
    return parse_processes(machine.run(_LOOK % name).stdout)


def _expected(expected: Expectation, name: str) -> Any:
    found = expected.services.get(name)
    if not found:
        pytest.skip("nothing of the kind was applied")
    return found


def _module(expected: Expectation) -> str:
    return str(_expected(expected, "module"))


def check_module_loaded(machine: Any, expected: Expectation) -> None:
    """The Fastsocket module is loaded."""
    module = _module(expected)
    assert machine.file(f"/sys/module/{module}").is_directory, f"{module} is not loaded"


def check_module_parameters(machine: Any, expected: Expectation) -> None:
    """The parameters of the module have the values that were asked for."""
    values: Mapping[str, str] = _expected(expected, "values")
    for path, wanted in values.items():
        file = machine.file(path)
        assert file.exists, f"{path} is not there"
        now = file.content_string.strip()
        assert now == wanted, f"{path} is {now}, expected is {wanted}"


def check_module_kept(machine: Any, expected: Expectation) -> None:
    """What loads the module or sets its parameters at the next boot is in place."""
    _require_files(machine, _expected(expected, "module_files"))


def check_module_device(machine: Any, expected: Expectation) -> None:
    """The device that programs ask for a listener a core is there."""
    _module(expected)
    answer = machine.run("test -c %s", _DEVICE)
    assert answer.rc == 0, f"{_DEVICE} is missing"


def check_module_counters(machine: Any, expected: Expectation) -> None:
    """The counters of what is on move when somebody connects."""
    values: Mapping[str, str] = _expected(expected, "values")
    tables = [_LISTENERS] if expected.services["module"] else []
    if any(path.endswith("deliver") and value == "1" for path, value in values.items()):
        tables.append(_STEERED)
    if not tables:
        pytest.skip("nothing that counts connections is on")
    # Any server will do, the SSH server for one.
    places = list(parse_listening(machine.run("cat /proc/net/tcp").stdout).values())
    assert places, "no server listens that could be asked"
    before = [(path, machine.run("cat %s", path).stdout) for path in tables]
    said = _connect(machine, places[0])
    for path, text in before:
        assert _moves(machine, path, text), f"no counter of {path} moved when {said} was asked"


@pytest.mark.wanted
def check_services_served(machine: Any, expected: Expectation) -> None:
    """Connections to the services come from listeners with a clone a core."""
    services: Mapping[str, bool] = _expected(expected, "services")
    values: Mapping[str, str] = _expected(expected, "values")
    if "0" in [value for path, value in values.items() if path.endswith("listen_spawn")]:
        pytest.skip("enable_listen_spawn is 0")
    for name in [name for name, runs in services.items() if runs]:
        places = _places(machine, name)
        assert places, f"{name} listens on no IPv4 address"
        before = machine.run("cat %s", _LISTENERS).stdout
        said = _connect(machine, places[0])
        assert _moves(machine, _LISTENERS, before, _FROM_CLONES), (
            f"{name} took a connection to {said} from a listener without clones; with SO_REUSEPORT"
            " it gets none"
        )


def _connect(machine: Any, place: tuple[str, int]) -> str:
    """Connect to a server of the host, from the host; the place in words."""
    address, port = place
    address = "127.0.0.1" if address == "0.0.0.0" else address
    answer = machine.run(f"bash -c 'exec 3<>/dev/tcp/{address}/{port}'")
    assert answer.rc == 0, f"{address} port {port} does not take connections"
    return f"{address} port {port}"


def _moves(machine: Any, path: str, before: str, columns: Sequence[str] = ()) -> bool:
    """Whether a counter goes up. The server may take its time to accept."""
    first = parse_counters(before)
    deadline = time.monotonic() + _PATIENCE
    while True:
        now = parse_counters(machine.run("cat %s", path).stdout)
        if any(now[name] > first.get(name, 0) for name in columns or now):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def check_services_preloaded(machine: Any, expected: Expectation) -> None:
    """Every process of the services has libfsocket mapped."""
    services: Mapping[str, bool] = _expected(expected, "services")
    for name, runs in services.items():
        processes = _processes(machine, name)
        assert processes or not runs, f"{name} does not run any more"
        bare = [process.pid for process in processes if not process.current]
        assert not bare, (
            f"{len(bare)} of {len(processes)} processes of {name} run without libfsocket,"
            f" the first is {bare[0]}"
        )


def check_services_kept(machine: Any, expected: Expectation) -> None:
    """What starts the services under libfsocket the next time is in place."""
    _require_files(machine, _expected(expected, "service_files"))


def check_services_taken_back(machine: Any, expected: Expectation) -> None:
    """No process of the services has libfsocket mapped any more."""
    names: Sequence[str] = _expected(expected, "plain")
    for name in names:
        mapped = [process.pid for process in _processes(machine, name) if process.mapped]
        assert not mapped, f"process {mapped[0]} of {name} still has libfsocket mapped"


def check_services_still_run(machine: Any, expected: Expectation) -> None:
    """The services that were taken back run."""
    names: Sequence[str] = _expected(expected, "running")
    for name in names:
        assert _processes(machine, name), f"{name} does not run any more"


@pytest.mark.wanted
def check_module_unloaded(machine: Any, expected: Expectation) -> None:
    """The module that was taken back is not loaded any more."""
    module = str(_expected(expected, "unloaded"))
    assert not machine.file(f"/sys/module/{module}").is_directory, f"{module} is still loaded"


def check_module_not_kept(machine: Any, expected: Expectation) -> None:
    """Nothing loads the module that was taken back at the next boot."""
    paths: Sequence[str] = _expected(expected, "gone")
    for path in paths:
        assert not machine.file(path).exists, f"{path} is still there"


def _places(machine: Any, name: str) -> list[tuple[str, int]]:
    """Where a service listens."""
    listening = parse_listening(machine.run("cat /proc/net/tcp").stdout)
    sockets = {socket for process in _processes(machine, name) for socket in process.sockets}
    return sorted(place for socket, place in listening.items() if socket in sockets)


def _require_files(machine: Any, paths: Sequence[str]) -> None:
    for path in paths:
        assert machine.file(path).exists, f"{path} is missing"
