"""Taking module and services back with a shell only, on a host in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.plainly import read_record, without_block
from fsdeploy.fleet.transport import Ssh
from fsdeploy.fleet.unserve import _Services, restore_script
from fsdeploy.services.plan import Level, Workload
from tests.unit.fleet.folders import LocalShell
from tests.unit.services.host_side import KMOD, LIBRARY, Machine, choice_of, host_side

HOST = Host("a")
PARAMETERS = "/sys/module/fastsocket/parameters"


class Shell(LocalShell):
    """With the programs that services are restarted by."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.root, ("/proc/", "/sys/", "/etc/", "/var/lib/", "/run/"))
        self.tool("systemctl", "")
        self.tool("rpm", "")
        module = machine.path("/sys/module/fastsocket")
        self.tool("rmmod", f'grep -q "1 libfsocket" {machine.root}/busy || rm -rf {module}')
        # What an init script does: stops the service and starts it with what its file says.
        self.tool(
            "restart",
            f"cd {machine.root}/proc; for d in 1*; do"
            ' grep -q "^Name:.$1$" $d/status && sed -i /libfsocket/d $d/maps; done',
        )
        machine.put("/busy", "")

    def here(self, text: str) -> str:
        return super().here(text.replace('"/etc/init.d/$1" restart', 'restart "$1"'))


def take_back(shell: Shell, level: Level) -> str:
    way = _Services(level)
    record = read_record(cast(Ssh, shell), HOST, way.record)
    assert record
    return way.plainly(cast(Ssh, shell), HOST, record).reason


@pytest.mark.parametrize("systemd", [False, True], ids=["el6", "systemd"])
def test_a_shell_puts_back_what_the_module_applied(tmp_path: Path, systemd: bool) -> None:
    machine = Machine(tmp_path / "root", ("nginx", "haproxy"), systemd=systemd)
    machine.put("/etc/sysconfig/nginx", "A=1")
    machine.path("/etc/sysconfig/nginx").chmod(0o600)
    machine.put("/busy", "")
    # Its packages are rpm's business.
    machine.put("/etc/modprobe.d/fsdeploy-fastsocket.conf", "# was here\n")
    before = machine.tree()
    machine.apply(choice_of(tmp_path))
    shell = Shell(machine)
    if systemd:
        shell.tool("systemctl", '[ "$1" != restart ] || exec restart "$2"')
    assert "nginx" in take_back(shell, Level.SERVICE)
    for name in ("nginx", "haproxy"):
        assert host_side.how_runs(machine.host, name) == host_side.PLAIN
    assert "fastsocket unloaded" in take_back(shell, Level.MODULE)
    said = shell.log.read_text().splitlines()
    assert [line for line in said if line.startswith("restart")] == [
        "restart haproxy",
        "restart nginx",
    ]
    assert f"rpm -e {LIBRARY}" in said
    assert f"rpm -e {KMOD}" in said
    now = machine.tree()
    for path in ("/dev/fastsocket", host_side.LIBRARY):
        del now[path]
    dep = next(path for path in now if path.endswith("modules.dep"))
    del now[dep], before[dep]
    assert now == before
    for level in Level:
        assert read_record(cast(Ssh, shell), HOST, _Services(level).record) is None


def test_old_values_come_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ())
    machine._change(KMOD, there=True)
    machine.packages.append(KMOD)
    machine._load()
    machine.put(f"{PARAMETERS}/enable_fast_epoll", "0\n")
    machine.apply(choice_of(tmp_path, workload=Workload.PROXY))
    assert machine.get(f"{PARAMETERS}/enable_fast_epoll") == "1\n"
    shell = Shell(machine)
    take_back(shell, Level.MODULE)
    assert machine.get(f"{PARAMETERS}/enable_fast_epoll") == "0\n"
    assert machine.get(f"{PARAMETERS}/enable_receive_flow_deliver") == "0\n"
    assert "rmmod" not in shell.log.read_text()


def test_a_module_in_use_stays_and_is_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    before = {path for path in machine.tree() if path.startswith("/etc")}
    machine.apply(choice_of(tmp_path))
    shell = Shell(machine)
    machine.put("/busy", "1 libfsocket")
    reason = take_back(shell, Level.MODULE)
    assert "stays: fastsocket, in use by nginx (10" in reason
    assert "unloaded" not in reason
    assert machine.get(f"{PARAMETERS}/enable_listen_spawn") == "0\n"
    assert machine.get(f"{PARAMETERS}/enable_fastsocket_debug") == "3\n"
    assert "rpm -e" not in shell.log.read_text()
    # The files are as before, and no second try writes over what comes after.
    machine.put("/etc/modprobe.d/fsdeploy-fastsocket.conf", "# mine\n")
    take_back(shell, Level.SERVICE)
    machine.put("/busy", "")
    assert "unloaded" in take_back(shell, Level.MODULE)
    assert machine.get("/etc/modprobe.d/fsdeploy-fastsocket.conf") == "# mine\n"
    assert f"rpm -e {KMOD}" in shell.log.read_text()
    machine.path("/etc/modprobe.d/fsdeploy-fastsocket.conf").unlink()
    assert {path for path in machine.tree() if path.startswith("/etc")} == before
    # The host's own Python understands what a shell left, too.
    assert not machine.path(_Services(Level.MODULE).record).exists()


def test_what_a_shell_leaves_the_module_takes_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    shell = Shell(machine)
    machine.put("/busy", "1 libfsocket")
    take_back(shell, Level.MODULE)
    machine.restore("service")
    results, _ = machine.restore("module")
    assert {item["kind"]: item["outcome"] for item in results} == {
        "module": "changed",
        "package": "changed",
    }
    assert machine.packages == []


def test_a_service_that_does_not_come_back_is_told_and_stays_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    shell = Shell(machine)
    shell.tool("restart", f"rm -rf {machine.root}/proc/1*")
    # The script's patience, in tries.
    monkeypatch.setattr(
        "fsdeploy.fleet.unserve._SCRIPT_HEAD",
        restore_script.__globals__["_SCRIPT_HEAD"].replace("-gt 100", "-gt 2"),
    )
    with pytest.raises(FsdeployError, match="nginx was restarted and does not run without"):
        take_back(shell, Level.SERVICE)
    record = read_record(cast(Ssh, shell), HOST, _Services(Level.SERVICE).record)
    assert record
    assert record["services"] == {"nginx": "/etc/sysconfig/nginx"}


def test_other_edits_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.put("/etc/sysconfig/nginx", "A=1\n")
    machine.apply(choice_of(tmp_path))
    machine.put("/etc/sysconfig/nginx", machine.get("/etc/sysconfig/nginx") + "B=2\n")
    take_back(Shell(machine), Level.SERVICE)
    assert machine.get("/etc/sysconfig/nginx") == "A=1\nB=2\n"


def test_a_library_that_was_there_before_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    theirs = LIBRARY.replace("0.1.0", "0.0.9")
    machine.packages.append(theirs)
    machine.put(host_side.LIBRARY, "")
    machine.apply(choice_of(tmp_path))
    shell = Shell(machine)
    assert f"stays: {LIBRARY}, {theirs} before it is not at hand" in take_back(shell, Level.SERVICE)
    assert read_record(cast(Ssh, shell), HOST, _Services(Level.SERVICE).record) is None


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("text", ["", "a\n", "a"])
def test_both_sides_take_the_same_lines_out(text: str, level: Level) -> None:
    once = host_side.BLOCKS[str(level)].within(text, ["x"])
    assert without_block(once.encode(), str(level)) == text.encode()
    assert without_block(once.encode(), "tuning") == once.encode()


def test_a_dry_run_says_it_all(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    record = {level: json.loads(machine.get(_Services(level).record)) for level in Level}
    said = _Services(Level.SERVICE).would(record[Level.SERVICE])
    assert said.startswith("would restart nginx without libfsocket, put /etc/sysconfig/nginx back")
    assert f"remove {LIBRARY}" in said
    assert "unload fastsocket" in _Services(Level.MODULE).would(record[Level.MODULE])
