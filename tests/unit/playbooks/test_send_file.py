"""Files that Ansible brings to a host, over a connection to this machine itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fsdeploy import paths
from fsdeploy.fleet.ansible import HostResult, run_playbook
from fsdeploy.fleet.inventory import parse_inventory
from fsdeploy.fleet.transport import Ssh

PLAYBOOK = """
- name: Send
  hosts: all
  gather_facts: false
  tasks:
    - name: Send
      send_file:
        src: "{{ send_src }}"
        dest: "{{ send_dest }}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(paths.data_root() / "playbooks", tmp_path / "playbooks")
    (tmp_path / "playbooks" / "send.yml").write_text(PLAYBOOK)
    (tmp_path / "hosts.yml").write_text("fleet: {hosts: {a: {ansible_connection: local}}}")
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    return tmp_path


def send(folder: Path, source: Path, target: Path, *, check: bool = False) -> HostResult:
    path = folder / "hosts.yml"
    variables = {"send_src": str(source), "send_dest": str(target)}
    with Ssh(parse_inventory(path.read_text(), path)) as ssh:
        log = folder / "log"
        return run_playbook("send", ssh, ["a"], variables, log=log, check=check)["a"]


def test_a_file_arrives_in_a_folder_for_root_only(folder: Path) -> None:
    source, target = folder / "it's a file", folder / "on it's/way/to/file"
    source.write_bytes(bytes(range(256)) * 9)
    looked = send(folder, source, target, check=True)
    assert (looked.ok, looked.changed) == (True, True)
    assert not target.parent.exists()
    for mode in (0o700, 0o755):
        if target.parent.exists():
            target.parent.chmod(mode)
        sent = send(folder, source, target)
        assert (sent.ok, sent.changed) == (True, True), sent.message
        assert target.read_bytes() == source.read_bytes()
        assert target.parent.stat().st_mode & 0o777 == 0o700


def test_what_cannot_arrive_is_told(folder: Path) -> None:
    source = folder / "source"
    source.write_text("x")
    refused = send(folder, source, source / "below" / "file")
    assert not refused.ok
    assert "Not a directory" in refused.message
    gone = send(folder, folder / "none", folder / "file")
    assert not gone.ok
    assert "none" in gone.message
