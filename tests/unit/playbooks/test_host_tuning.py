"""host_tuning the way Ansible runs it, with our Python and with old ones where they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.host import old_pythons, run_module
from tests.unit.tuning.host_side import Machine, document

SETTINGS = [
    {"kind": "interrupt", "target": "eth0-TxRx-3", "value": "08", "why": "words for people"},
    {"kind": "value", "target": "/proc/sys/net/core/somaxconn", "value": "16384"},
]

PYTHONS = [sys.executable, *old_pythons()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made_of: dict[str, Any] = document("igb-8")
    made_of["irqbalance"] = {"program": "", "config": "", "arguments": []}
    return Machine(tmp_path / "root", made_of)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_snapshot(machine: Machine, python: str) -> None:
    before = machine.tree()
    answer = run_module("host_tuning", python, root=str(machine.root))
    assert not answer["changed"]
    assert answer["snapshot"]["files"] == machine.made_of["files"]
    assert answer["snapshot"]["links"] == machine.made_of["links"]
    assert machine.tree() == before


@pytest.mark.parametrize("python", PYTHONS)
def test_there_and_back(machine: Machine, python: str) -> None:
    before = machine.tree()
    root = str(machine.root)

    def tune(**arguments: Any) -> dict[str, Any]:
        return dict(run_module("host_tuning", python, root=root, **arguments))

    tried = tune(state="applied", settings=SETTINGS, _ansible_check_mode=True, _ansible_diff=True)
    assert tried["changed"]
    assert {"before": "128\n", "after": "16384\n"}.items() <= tried["diff"][1].items()
    assert machine.tree() == before

    first = tune(state="applied", settings=SETTINGS)
    assert [item["outcome"] for item in first["results"]] == ["changed", "changed"], first
    assert machine.get("/proc/irq/68/smp_affinity") == "08\n"
    program = machine.get("/usr/sbin/fsdeploy-tuning")
    assert "def apply_settings" in program
    second = tune(state="applied", settings=SETTINGS)
    assert not second["changed"], second
    back = tune(state="restored")
    assert back["changed"]
    assert machine.tree() == before
    assert not tune(state="restored")["changed"]


def test_settings_are_asked_for(machine: Machine) -> None:
    answer = run_module("host_tuning", state="applied", root=str(machine.root))
    assert answer["failed"]
    assert "settings" in answer["msg"]


def test_a_damaged_record_is_told(machine: Machine) -> None:
    machine.put("/var/lib/fsdeploy/tuning/before.json", "{")
    answer = run_module("host_tuning", state="restored", root=str(machine.root))
    assert answer["failed"]
    assert "damaged" in answer["msg"]
