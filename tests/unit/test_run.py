from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError


def alive(pid: int) -> bool:
    """Is the process there and not a zombie that only its parent has to collect?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_output_is_returned_logged_and_given_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    seen: list[str] = []
    ended = run.run(["sh", "-c", "echo one; echo two >&2"], log=log, on_line=seen.append)
    assert ended.output == "one\ntwo\n"
    assert seen == ["one", "two"]
    assert log.read_text().endswith("-c echo one; echo two >&2\none\ntwo\n")


def test_failure_shows_the_end_of_the_output_and_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(run.CommandFailed, match="ended with code 7:\nbroken") as caught:
        run.run(["sh", "-c", "echo broken; exit 7"], log=log)
    assert caught.value.result.returncode == 7
    assert caught.value.log == log


def test_environment_is_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-j99")
    out = run.run(["env"], env={"WANTED": "1"}).output.splitlines()
    assert "WANTED=1" in out
    assert "LC_ALL=C" in out
    assert not any(line.startswith("MAKEFLAGS") for line in out)


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(run.CommandFailed, match="did not end within"):
        run.run(["sh", "-c", f"sleep 600 & echo $! > {note}; wait"], timeout=1)
    pid = int(note.read_text())
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def test_end_kills_what_ignores_sigterm() -> None:
    process = run.start(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=-1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert run.end(process, grace=0.2) == -signal.SIGKILL
    process.stdout.close()


def test_input_reaches_the_process() -> None:
    assert run.run(["cat"], input_text="text\n").output == "text\n"


def test_standard_output_goes_to_a_file_as_bytes(tmp_path: Path) -> None:
    target = tmp_path / "bytes"
    with target.open("wb") as stream:
        ended = run.run(["sh", "-c", "printf '\\377'; echo note >&2"], stdout=stream)
    assert target.read_bytes() == b"\xff"
    assert ended.output == "note\n"


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find", lambda _tool: None)
    with pytest.raises(FsdeployError, match="missing tools: rpmbuild, xz") as caught:
        run.require("rpmbuild", "xz")
    assert (
        caught.value.hint
        == "Debian: apt-get install rpm xz-utils; CentOS: yum install rpm-build xz"
    )


def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "from fsdeploy import run; from pathlib import Path; import time;"
        "p = run.start(['sleep', '600']);"
        f"Path({str(note)!r}).write_text(str(p.pid)); time.sleep(600)"
    )
    parent = run.start([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(note.read_text())
    parent.kill()
    parent.wait()
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)
