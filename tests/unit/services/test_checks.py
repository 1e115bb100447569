"""The shipped checks of module and services, on hosts in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import run
from fsdeploy.fleet.services import Item, expectation_of
from fsdeploy.services.plan import Workload
from fsdeploy.tuning.settings import Outcome
from fsdeploy.verify import check_services as checks
from fsdeploy.verify.report import Expectation
from tests.unit.services.host_side import Machine, choice_of

HEAD = "CPU Loc_lst_lookup Glo_lst_lookup Com_accept Loc_accept Rem_accept Glo_accept\n"
STEERED = "CPU Pass_total Steer_total\n"
# Port 80 on all addresses, socket 4711; 127.0.0.1 port 22; an established one.
SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0100007F:0016 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4713 1
"""


@dataclass
class Answer:
    rc: int
    stdout: str


class FakeFile:
    def __init__(self, path: Path) -> None:
        self.exists = path.exists()
        self.is_directory = path.is_dir()
        self.content_string = path.read_text() if path.is_file() else ""


class FakeMachine:
    """What the checks see of testinfra, on a folder."""

    def __init__(self, host: Machine) -> None:
        self.host = host
        self.asked: list[str] = []
        # What a connection does to the tables.
        self.counted = {"/proc/net/hash_stat": "1 0 0 1 0 0", "/proc/net/steer_stat": "4 0"}
        self.refuses = False
        self.device = True

    def run(self, command: str, *words: str) -> Answer:
        text = command % words if words else command
        if "/dev/tcp" in text:
            self.asked.append(text)
            for path, line in self.counted.items():
                if self.host.path(path).exists():
                    head = self.host.get(path).splitlines()[0]
                    self.host.put(path, f"{head}\n0 {line}\n1 {line}\n")
            return Answer(int(self.refuses), "")
        if text.startswith("test -c"):
            return Answer(int(not self.device), "")
        root = self.host.root
        # The place of a process stays what it is for the host.
        text = text.replace("/proc/", f"{root}/proc/").replace(
            f"${{d#{root}/proc/}}", f"${{d#{root}/proc/}}"
        )
        ended = run.run(["sh", "-c", text], check=False)
        return Answer(ended.returncode, ended.output)

    def file(self, path: str) -> FakeFile:
        return FakeFile(self.host.path(path))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PATIENCE", 0.0)


def applied(tmp_path: Path, **values: Any) -> tuple[FakeMachine, Expectation]:
    host = Machine(tmp_path / "root", ("nginx", "lighttpd"), **values)
    host.stop("lighttpd")
    host.put("/proc/net/tcp", SOCKETS)
    choice = choice_of(tmp_path, workload=Workload.PROXY)
    plan = host.plan(choice)
    results, _ = host.apply(choice)
    if plan.module:
        host.put("/proc/net/hash_stat", HEAD + "0 0 0 0 0 0 0\n1 0 0 0 0 0 0\n")
    host.put("/proc/net/steer_stat", STEERED + "0 0 0\n1 0 0\n")
    for path in host.path("/proc").glob("1*"):
        (path / "fd").mkdir()
        (path / "fd" / "6").symlink_to("socket:[4711]")
    items = [
        Item(
            item["kind"],
            item["target"],
            item["wanted"],
            item["before"],
            item["after"],
            Outcome(item["outcome"]),
        )
        for item in results
    ]
    return FakeMachine(host), Expectation(services=expectation_of(plan, items))


Check = Callable[[FakeMachine, Expectation], None]
APPLIED = [
    checks.check_module_loaded,
    checks.check_module_parameters,
    checks.check_module_kept,
    checks.check_module_device,
    checks.check_module_counters,
    checks.check_services_served,
    checks.check_services_preloaded,
    checks.check_services_kept,
]


@pytest.mark.parametrize("check", APPLIED)
@pytest.mark.parametrize("systemd", [False, True], ids=["el6", "systemd"])
def test_a_host_as_it_was_left_passes(tmp_path: Path, check: Check, systemd: bool) -> None:
    machine, expected = applied(tmp_path, systemd=systemd)
    check(machine, expected)
    with pytest.raises(pytest.skip.Exception):
        check(machine, Expectation())


def test_all_checks_are_tried_here() -> None:
    there = {name for name in dir(checks) if name.startswith("check_")}
    after = {"services_taken_back", "services_still_run", "module_unloaded", "module_not_kept"}
    tried = {check.__name__ for check in APPLIED} | {f"check_{name}" for name in after}
    assert there == tried


def test_a_kernel_with_receive_flow_deliver_alone(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path, rfd="0")
    checks.check_module_parameters(machine, expected)
    checks.check_module_counters(machine, expected)
    for check in (checks.check_module_loaded, checks.check_module_device):
        with pytest.raises(pytest.skip.Exception):
            check(machine, expected)
    machine.counted = {}
    with pytest.raises(AssertionError, match="no counter of /proc/net/steer_stat moved"):
        checks.check_module_counters(machine, expected)


def test_a_module_that_is_gone(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    machine.host.stop("nginx")
    machine.host._unload("fastsocket")
    machine.device = False
    with pytest.raises(AssertionError, match="fastsocket is not loaded"):
        checks.check_module_loaded(machine, expected)
    with pytest.raises(AssertionError, match="enable_listen_spawn is not there"):
        checks.check_module_parameters(machine, expected)
    with pytest.raises(AssertionError, match="/dev/fastsocket is missing"):
        checks.check_module_device(machine, expected)


def test_a_parameter_that_is_otherwise(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    machine.host.put("/sys/module/fastsocket/parameters/enable_fast_epoll", "0\n")
    with pytest.raises(AssertionError, match="enable_fast_epoll is 0, expected is 1"):
        checks.check_module_parameters(machine, expected)


def test_counters_that_stand_still(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    del machine.counted["/proc/net/steer_stat"]
    with pytest.raises(AssertionError, match=r"steer_stat moved when 127.0.0.1 port 80 was asked"):
        checks.check_module_counters(machine, expected)
    # Accepted, but not from a listener with clones.
    machine.counted["/proc/net/hash_stat"] = "1 0 1 0 0 0"
    machine.host.put("/proc/net/hash_stat", HEAD + "0 0 0 0 0 0 0\n1 0 0 0 0 0 0\n")
    checks_served = checks.check_services_served
    with pytest.raises(AssertionError, match="from a listener without clones"):
        checks_served(machine, expected)
    assert machine.asked == ["bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'"] * 2


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    machine.refuses = True
    with pytest.raises(AssertionError, match="port 80 does not take connections"):
        checks.check_module_counters(machine, expected)


def test_a_service_without_the_library(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    machine.host.start("nginx", count=1)
    with pytest.raises(AssertionError, match="1 of 3 processes of nginx run without libfsocket"):
        checks.check_services_preloaded(machine, expected)
    machine.host.stop("nginx")
    with pytest.raises(AssertionError, match="nginx does not run any more"):
        checks.check_services_preloaded(machine, expected)


def test_what_keeps_it_is_gone(tmp_path: Path) -> None:
    machine, expected = applied(tmp_path)
    machine.host.path("/etc/sysconfig/nginx").unlink()
    with pytest.raises(AssertionError, match="/etc/sysconfig/nginx is missing"):
        checks.check_services_kept(machine, expected)
    machine.host.path("/etc/modprobe.d/fsdeploy-fastsocket.conf").unlink()
    with pytest.raises(AssertionError, match=r"fsdeploy-fastsocket\.conf is missing"):
        checks.check_module_kept(machine, expected)


def test_what_was_taken_back(tmp_path: Path) -> None:
    machine, _ = applied(tmp_path)
    back = Expectation(
        services={
            "plain": ["nginx"],
            "running": ["nginx"],
            "unloaded": "fastsocket",
            "gone": ["/etc/modprobe.d/fsdeploy-fastsocket.conf"],
        }
    )
    with pytest.raises(AssertionError, match="of nginx still has libfsocket mapped"):
        checks.check_services_taken_back(machine, back)
    with pytest.raises(AssertionError, match="fastsocket is still loaded"):
        checks.check_module_unloaded(machine, back)
    with pytest.raises(AssertionError, match="is still there"):
        checks.check_module_not_kept(machine, back)
    checks.check_services_still_run(machine, back)
    # One that was replaced meanwhile is mapped as well.
    for path in machine.host.path("/proc").glob("1*/maps"):
        path.write_text(path.read_text().replace(".so\n", ".so (deleted)\n"))
    with pytest.raises(AssertionError, match="still has libfsocket mapped"):
        checks.check_services_taken_back(machine, back)
    for level in ("service", "module"):
        machine.host.restore(level)
    for check in (
        checks.check_services_taken_back,
        checks.check_services_still_run,
        checks.check_module_unloaded,
        checks.check_module_not_kept,
    ):
        check(machine, back)
    machine.host.stop("nginx")
    with pytest.raises(AssertionError, match="nginx does not run any more"):
        checks.check_services_still_run(machine, back)
