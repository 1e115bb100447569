"""The playbooks as Ansible 2.12 sees them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from fsdeploy import paths, run

FOLDER = paths.data_root() / "playbooks"
PLAYBOOKS = sorted(FOLDER.glob("*.yml"))
ROLES = sorted(path for path in (FOLDER / "roles").iterdir() if path.is_dir())


def test_the_ansible_that_manages_old_hosts_takes_them() -> None:
    inventory = FOLDER / "inventory" / "example.yml"
    ended = run.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "--syntax-check",
            "-i",
            inventory,
            *PLAYBOOKS,
        ],
        env={"ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert ended.returncode == 0, ended.output


def test_modules_are_not_copied_before_they_run() -> None:
    """Six times as many commands over SSH otherwise; Ansible takes it from one place only."""
    ended = run.run(
        [Path(sys.executable).with_name("ansible-config"), "dump", "--only-changed"],
        env={"ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
    )
    assert re.search(r"^ANSIBLE_PIPELINING\(.*\) = True$", ended.output, re.MULTILINE)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_says_what_it_takes(role: Path) -> None:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    entries = {path.stem for path in (role / "tasks").glob("*.yml")} - {"install", "send", "fetch"}
    assert set(specs) == entries
    for spec in specs.values():
        assert all(name.startswith(f"{role.name}_") for name in spec["options"])
