"""host_services the way Ansible runs it, with our Python and with old ones where they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.host import old_pythons, run_module
from tests.unit.services.host_side import Machine

PYTHONS = [sys.executable, *old_pythons()]
OPTIONS = "/etc/modprobe.d/fsdeploy-fastsocket.conf"
PLAN = {
    "packages": [],
    "files": [
        {"level": "module", "path": OPTIONS, "text": "options x\n", "mode": 0o644},
        {"level": "module", "path": "/etc/modules", "lines": ["fastsocket"]},
        {"level": "service", "path": "/etc/sysconfig/nginx", "lines": ["LD_PRELOAD=x"]},
    ],
    "module": "",
    "values": [{"kind": "value", "target": "/sys/module/rfd/parameters/x", "value": "1"}],
    "services": {"nginx": "/etc/sysconfig/nginx"},
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "root")
    # Programs are not run on a folder, so nothing may have to be restarted.
    made.stop("nginx")
    made.put("/sys/module/rfd/parameters/x", "0\n")
    return made


@pytest.mark.parametrize("python", PYTHONS)
def test_there_and_back(machine: Machine, python: str) -> None:
    before, root = machine.tree(), str(machine.root)

    def serve(**arguments: Any) -> dict[str, Any]:
        return dict(run_module("host_services", python, root=root, **arguments))

    looked = serve()
    assert not looked["changed"]
    assert looked["host"]["services"]["nginx"]["runs"] == "not running"
    applied = {"state": "applied", "plan": PLAN, "folder": "/nowhere"}
    tried = serve(**applied, _ansible_check_mode=True, _ansible_diff=True)
    assert tried["changed"]
    assert {"before": "\n", "after": "fastsocket\n\n"}.items() <= tried["diff"][1].items()
    assert machine.tree() == before

    first = serve(**applied)
    assert first["changed"], first
    assert machine.get(OPTIONS) == "options x\n"
    assert machine.get("/sys/module/rfd/parameters/x") == "1\n"
    assert not serve(**applied)["changed"]
    for level in ("service", "module"):
        assert serve(state="restored", level=level)["changed"]
    assert machine.tree() == before
    assert not serve(state="restored", level="module")["changed"]


def test_what_could_not_be_done_fails(machine: Machine) -> None:
    root = str(machine.root)
    plan = {**PLAN, "module": "fastsocket"}
    answer = run_module("host_services", state="applied", plan=plan, folder="/x", root=root)
    assert answer["failed"]
    assert answer["msg"].startswith("fastsocket: no reason")
    assert answer["results"]


def test_what_is_asked_for(machine: Machine) -> None:
    for arguments in ({"state": "applied"}, {"state": "restored"}):
        assert run_module("host_services", root=str(machine.root), **arguments)["failed"]


def test_a_damaged_record_is_told(machine: Machine) -> None:
    machine.put("/var/lib/fsdeploy/service/before.json", "{")
    answer = run_module("host_services", state="restored", level="service", root=str(machine.root))
    assert answer["failed"]
    assert "damaged" in answer["msg"]
