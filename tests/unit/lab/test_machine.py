# SPDX-License-Identifier: GPL-2.0-only

import dataclasses
from pathlib import Path

import pytest

from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.lab import machine, network, qemu, state
from tests.unit.lab.test_state import RECORD


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("request_words", "option"),
    [
        ({"hosts": 0}, "--hosts 0"),
        ({"hosts": 201}, "--hosts 201"),
        ({"cpus": 0}, "--cpus 0"),
        ({"memory_mib": 1}, "--memory 1"),
    ],
)
def test_numbers_no_machine_could_have_are_refused(
    request_words: dict[str, int], option: str
) -> None:
    with pytest.raises(FsdeployError, match=f"{option}: between"):
        machine.LabRequest(**request_words)  # type: ignore[arg-type]


def test_a_machine_has_its_disk_first_and_ssh_on_loopback() -> None:
    words = " ".join(qemu.command_line(machine.machine_of(RECORD)))
    assert words.index("disk.qcow2") < words.index("seed.tar")
    assert "hostfwd=tcp:127.0.0.1:20001-:22" in words
    assert "-no-reboot" not in words
    assert f"-pidfile {RECORD.pid_file}" in words
    assert "i6300esb" in words


def test_the_first_host_needs_a_kernel() -> None:
    with pytest.raises(FsdeployError, match="needs a kernel") as problem:
        machine.lab_up(machine.LabRequest())
    assert "--kernel" in problem.value.hint


def test_an_unknown_host_is_named_with_those_there_are() -> None:
    with pytest.raises(FsdeployError, match="no lab host 'lab1'"):
        machine.find_host("lab1")
    state.save((RECORD,))
    with pytest.raises(FsdeployError, match="no lab host 'lab9'") as problem:
        machine.lab_down(["lab9"])
    assert "lab1" in problem.value.hint
    assert state.load() == (RECORD,)


def test_a_host_that_is_off_is_told_so() -> None:
    state.save((RECORD,))
    (status,) = machine.lab_status()
    assert (status.power, status.answers) == ("off", False)
    with pytest.raises(FsdeployError, match="lab1 is off"):
        machine.power("lab1", "reset")


def test_down_forgets_hosts_and_their_files() -> None:
    other = dataclasses.replace(RECORD, name="lab2", port=20002)
    state.save((RECORD, other))
    for record in (RECORD, other):
        record.folder.mkdir()
    assert machine.lab_down(["lab1"]) == ("lab1",)
    assert state.load() == (other,)
    assert "lab1" not in (state.lab_folder() / "ssh_config").read_text()
    assert not RECORD.folder.exists()
    assert machine.lab_down() == ("lab2",)
    assert state.load() == ()
    assert not (state.lab_folder() / "inventory.yml").exists()


@pytest.mark.parametrize(
    ("console", "told"),
    [
        ("[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "Kernel panic"),
        ("Error 15: File not found\n\nPress any key to continue...", "Error 15: File not found"),
    ],
)
def test_last_words_on_the_console_end_the_wait(
    console: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RECORD.folder.mkdir(parents=True)
    RECORD.serial.write_text("Kernel panic - not syncing: of an earlier boot\n")
    state.save((RECORD,))
    looked: list[int] = []

    def answers(port: int) -> bool:
        looked.append(port)
        with RECORD.serial.open("a") as stream:
            stream.write("[ 0.5] booting\n" if len(looked) == 1 else console)
        return False

    monkeypatch.setattr(network, "answers_ssh", answers)
    monkeypatch.setattr(state, "is_running", lambda _: True)
    with pytest.raises(CheckFailed, match=told):
        machine.wait_for_ssh("lab1")
    assert len(looked) == 2


def test_a_host_that_switched_itself_off_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state.save((RECORD,))
    monkeypatch.setattr(network, "answers_ssh", lambda _: False)
    with pytest.raises(CheckFailed, match="switched itself off"):
        machine.wait_for_ssh("lab1")


def test_a_running_lab_takes_no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    state.save((RECORD,))
    monkeypatch.setattr(state, "is_running", lambda _: True)
    assert machine.lab_up(machine.LabRequest()).names == ("lab1",)
    with pytest.raises(FsdeployError, match="other settings: --memory") as problem:
        machine.lab_up(machine.LabRequest(memory_mib=1024))
    assert problem.value.hint == "fsdeploy lab down lab1"


def test_a_half_made_host_goes_with_the_next_up(monkeypatch: pytest.MonkeyPatch) -> None:
    half = dataclasses.replace(RECORD, name="lab2", phase=state.STARTING, host_key="")
    state.save((RECORD, half))
    half.folder.mkdir()
    monkeypatch.setattr(state, "is_running", lambda _: True)
    assert machine.lab_up(machine.LabRequest()).names == ("lab1",)
    assert state.load() == (RECORD,)
    assert not half.folder.exists()
