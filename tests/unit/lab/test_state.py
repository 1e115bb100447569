# SPDX-License-Identifier: GPL-2.0-only

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.lab import state

RECORD = state.HostRecord(
    name="lab1",
    phase=state.READY,
    image="0123",
    disk="/cache/disk.raw",
    kernels=("6.1.192-stock.01234567.x86_64",),
    boot_loader="GRUB 0.97 (Debian)",
    cpus=2,
    memory_mib=512,
    port=20001,
    mac="52:54:00:f5:00:01",
    host_key="ssh-rsa AAAA",
)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[run.Process]:
    """A process that looks like the QEMU of RECORD."""
    script = tmp_path / "qemu-system-x86_64"
    script.symlink_to("/bin/sh")
    process = run.start([script, "-c", "read x", "-pidfile", RECORD.pid_file], stdin=-1)
    try:
        yield process
    finally:
        run.end(process)
        assert process.stdin
        process.stdin.close()


def test_records_survive_being_written() -> None:
    assert state.parse(state.render((RECORD,))) == (RECORD,)
    state.save((RECORD,))
    assert state.load() == (RECORD,)


def test_no_record_is_no_host() -> None:
    assert state.load() == ()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9, "hosts": []}', '{"format": 1}'])
def test_a_foreign_record_is_named(text: str) -> None:
    state.lab_folder().mkdir(parents=True)
    (state.lab_folder() / "hosts.json").write_text(text)
    with pytest.raises(FsdeployError, match=r"hosts\.json is not a record"):
        state.load()


def test_a_process_belongs_by_the_whole_path_of_its_pid_file() -> None:
    words = ("/usr/bin/qemu-system-x86_64", "-name", "lab1", "-pidfile", "/s/lab1/pid")
    assert state.belongs(words, Path("/s/lab1/pid"))
    assert not state.belongs(words, Path("/s/lab11/pid"))
    assert not state.belongs(words, Path("/other/lab1/pid"))
    assert not state.belongs(("vi", "-pidfile", "/s/lab1/pid"), Path("/s/lab1/pid"))
    assert not state.belongs((), Path("/s/lab1/pid"))


def test_running_is_found_by_command_line(machine: run.Process) -> None:
    assert state.is_running(RECORD)
    assert state.processes_of(RECORD.pid_file) == (machine.pid,)
    other = dataclasses.replace(RECORD, name="lab2")
    assert not state.is_running(other)


def test_only_the_hosts_own_process_is_ended(machine: run.Process) -> None:
    state.end_process(machine.pid, state.lab_folder() / "lab2/pid")
    assert state.is_running(RECORD)
    state.end_process(machine.pid, RECORD.pid_file)
    assert state.wait_gone(RECORD.pid_file, 5)


def test_ending_a_process_that_is_gone_is_nothing(machine: run.Process) -> None:
    run.end(machine)
    state.end_process(machine.pid, RECORD.pid_file)


def test_waiting_for_a_process_has_an_end(machine: run.Process) -> None:
    assert machine.poll() is None
    assert not state.wait_gone(RECORD.pid_file, 0.2)


def test_one_command_at_a_time() -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with state.locked():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with state.locked():
        inside.set()
        thread.join(timeout=0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_written_file_is_whole_and_has_its_mode(tmp_path: Path) -> None:
    state.write(tmp_path / "a/b", "text", mode=0o600)
    assert (tmp_path / "a/b").read_text() == "text"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_processes_in_a_folder_are_found_and_ended(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    (folder / "tree").mkdir(parents=True)
    (tmp_path / "scratch2").mkdir()
    by_word = run.start(["sleep", "60"], cwd=folder / "tree")
    by_name = run.start(["sh", "-c", "sleep 60; :", str(folder / "tree")])
    other = run.start(["sleep", "60"], cwd=tmp_path / "scratch2")
    try:
        state.end_all_in(folder)
        assert run.wait(by_word, 5) == -9
        assert run.wait(by_name, 5) == -9
        assert other.poll() is None
    finally:
        for process in (by_word, by_name, other):
            run.end(process)
