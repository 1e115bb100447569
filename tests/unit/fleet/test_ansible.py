"""What a playbook's lines become."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from fsdeploy import paths
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import journal
from fsdeploy.fleet.ansible import Events, message_of, playbook_argv, run_playbook
from fsdeploy.fleet.inventory import parse_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.transport import Ssh


def line(status: str, host: str = "a", action: str = "boot_entry", **result: object) -> str:
    event = {
        "event": "result",
        "status": status,
        "host": host,
        "task": "t",
        "action": action,
        "result": result,
    }
    return "FSDEPLOY " + json.dumps(event)


def test_results_by_host() -> None:
    tasks: list[str] = []
    events = Events(tasks.append)
    for text in (
        "PLAY [all] ***",
        'FSDEPLOY {"event": "task", "task": "role : Do"}',
        line("ok", changed=True, boot={"kind": "x"}),
        line("skipped", action="ansible.builtin.copy"),
        line("failed", "b", "ansible.builtin.copy", msg="no space"),
        line("failed", "b", "ansible.builtin.fail", msg="cleaned up"),
        line("unreachable", "c", msg="Connection refused"),
        "FSDEPLOY not json",
        'FSDEPLOY {"event": "end"}',
    ):
        events.line(text)
    results = events.results()
    assert events.ended
    assert tasks == ["role : Do"]
    assert results["a"].ok
    assert results["a"].changed
    assert results["a"].data["boot_entry"]["boot"] == {"kind": "x"}
    assert (results["b"].ok, results["b"].reached, results["b"].message) == (
        False,
        True,
        "no space",
    )
    assert results["b"].data["copy"]["msg"] == "no space"
    assert (results["c"].ok, results["c"].reached) == (False, False)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "a\n  b"}, "a b"),
        ({"msg": "MODULE FAILURE", "module_stderr": "x\nImportError: y\n"}, "ImportError: y"),
        (
            {"msg": "MODULE FAILURE", "module_stderr": "", "module_stdout": "sh: denied\r\n"},
            "sh: denied",
        ),
        ({"msg": "non-zero return code", "stderr": "no such thing"}, "no such thing"),
        ({}, "a task failed without a message"),
        (
            {
                "msg": "Request failed",
                "response": "HTTP Error 404: Not Found",
                "url": "http://repo/a.rpm",
            },
            "http://repo/a.rpm: HTTP Error 404: Not Found",
        ),
        (
            {"msg": "Request failed: <urlopen error refused>", "url": "http://repo/a.rpm"},
            "http://repo/a.rpm: Request failed: <urlopen error refused>",
        ),
    ],
)
def test_messages(result: dict[str, str], message: str) -> None:
    assert message_of(result) == message


def test_the_host_name_goes_to_ssh() -> None:
    inventory = parse_inventory("fleet: {hosts: {a: {ansible_host: 1.2.3.4}}}", Path("/i.yml"))
    with Ssh(inventory) as ssh:
        words = playbook_argv("arm", ssh, ["a", "b"], {"x": "1"}, check=True)
    extra = json.loads(words[words.index("--extra-vars") + 1])
    assert extra["ansible_host"] == "{{ inventory_hostname }}"
    assert extra["x"] == "1"
    assert words[words.index("--limit") + 1] == "a,b"
    assert "--check" in words
    assert words[-1].endswith("playbooks/arm.yml")


def test_ansible_itself_runs_our_playbook(tmp_path: Path) -> None:
    """On this machine, without SSH: the role's own check of its arguments answers."""
    path = tmp_path / "inventory.yml"
    path.write_text("fleet: {hosts: {a: {ansible_connection: local}}}")
    inventory = parse_inventory(path.read_text(), path)
    with Ssh(inventory) as ssh:
        results = run_playbook("arm", ssh, ["a"], log=tmp_path / "log")
        assert not results["a"].ok
        assert "trial_boot_release" in results["a"].message
        with pytest.raises(FsdeployError, match="could not run"):
            run_playbook("nothing", ssh, ["a"], log=tmp_path / "log")


SLOW_PLAYBOOK = """
- name: Take long
  hosts: all
  gather_facts: false
  tasks:
    - name: Take long
      ansible.builtin.raw: "echo >{folder}/begun; while ! [ -e {folder}/go ]; do sleep 0.1; done"
"""


def test_what_a_killed_rollout_left_at_work_holds_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible's worker goes on with its task; nobody asks hosts where they stand before its end."""
    folder = tmp_path / "playbooks"
    shutil.copytree(paths.data_root() / "playbooks", folder)
    (folder / "slow.yml").write_text(SLOW_PLAYBOOK.format(folder=tmp_path))
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(journal, "_LEFTOVER_SECONDS", 0.5)
    path = tmp_path / "inventory.yml"
    path.write_text("fleet: {hosts: {a: {ansible_connection: local}}}")
    inventory = parse_inventory(path.read_text(), path)
    child = os.fork()
    if child == 0:
        try:
            with Journal(tmp_path / "j") as book, book.lock() as held, Ssh(inventory) as ssh:
                run_playbook("slow", ssh, ["a"], log=tmp_path / "log", keep_open=[held])
        finally:
            os._exit(1)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Journal(tmp_path / "j") as book:
            with pytest.raises(FsdeployError, match="still at work"), book.lock():
                pass
            (tmp_path / "go").touch()
            monkeypatch.setattr(journal, "_LEFTOVER_SECONDS", 300)
            with book.lock():
                pass
    finally:
        (tmp_path / "go").touch()
