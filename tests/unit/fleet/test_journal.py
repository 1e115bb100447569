"""The journal: order of states, what outlives the process, one rollout at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import journal as module
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Candidate, RolloutPlan, Wave
from fsdeploy.fleet.states import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def begin(journal: Journal, *hosts: str) -> int:
    plan = RolloutPlan("1", (Wave(1, "canaries", tuple(Candidate(name) for name in hosts)),))
    return journal.begin(plan, inventory="i.yml", request={"kernel": "k.rpm"})


def test_what_is_written_is_there_for_the_next_process(path: Path) -> None:
    with Journal(path) as journal:
        number = begin(journal, "b", "a")
        journal.move(number, "a", State.PREFLIGHT, "fine", {"previous": "0"})
        journal.move(number, "a", State.STAGED, facts={"boot_id": "x"})
    with Journal(path) as journal:
        first, second = journal.hosts(number)
        assert (first.name, first.state) == ("b", State.PLANNED)
        assert second.state is State.STAGED
        assert second.facts == {"previous": "0", "boot_id": "x"}
        record = journal.latest()
        assert record
        assert record.request == {"kernel": "k.rpm"}
        story = [(event.state, event.reason) for event in journal.events(number, "a")]
        assert story == [(State.PLANNED, ""), (State.PREFLIGHT, "fine"), (State.STAGED, "")]


@pytest.mark.parametrize(
    ("way", "wrong"),
    [
        ([], State.ARMED),
        ([State.PREFLIGHT], State.TRIAL),
        ([State.PREFLIGHT, State.STAGED], State.VERIFIED),
        ([State.PREFLIGHT, State.ROLLED_BACK], State.STAGED),
        ([State.REFUSED], State.PREFLIGHT),
    ],
)
def test_no_state_is_skipped(path: Path, way: list[State], wrong: State) -> None:
    with Journal(path) as journal:
        number = begin(journal, "a")
        for state in way:
            journal.move(number, "a", state)
        with pytest.raises(ValueError, match="no way leads"):
            journal.move(number, "a", wrong)


def test_a_state_may_be_written_again(path: Path) -> None:
    with Journal(path) as journal:
        number = begin(journal, "a")
        journal.move(number, "a", State.PREFLIGHT)
        journal.move(number, "a", State.PREFLIGHT, "again")
        assert journal.host(number, "a").reason == "again"


def test_the_last_word_about_a_host(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal, "a", "b")
        second = begin(journal, "a")
        latest = journal.latest_of("a")
        assert latest
        assert latest.rollout == second
        assert journal.latest_of("c") is None
        everything = [(record.name, record.rollout) for record in journal.latest_of_all()]
        assert everything == [("a", second), ("b", 1)]


def test_a_rollout_that_did_not_get_to_a_host_does_not_hide_the_one_that_did(path: Path) -> None:
    with Journal(path) as journal:
        first = begin(journal, "a")
        journal.move(first, "a", State.PREFLIGHT, facts={"previous": "0"})
        second = begin(journal, "a")
        journal.move(second, "a", State.REFUSED, "no space")
        record = journal.latest_touched("a")
        assert record
        assert record.rollout == first
        assert journal.latest_touched("b") is None


def test_one_rollout_at_a_time(path: Path) -> None:
    with Journal(path) as journal, Journal(path) as other:
        with journal.lock(), pytest.raises(FsdeployError, match="a rollout is running") as held:
            other.lock().__enter__()
        assert "rollout --resume" in held.value.hint
        with other.lock():
            pass


def test_the_lock_of_a_dead_process_is_free(path: Path) -> None:
    with Journal(path) as journal:
        database = sqlite3.connect(path)
        import socket

        owner = f"{socket.gethostname()}:999999999"
        database.execute("INSERT INTO lock VALUES ('fleet', ?, 9e9)", (owner,))
        database.commit()
        database.close()
        with journal.lock():
            pass


def test_the_lock_of_another_machine_holds_until_it_expires(path: Path) -> None:
    with Journal(path) as journal:
        database = sqlite3.connect(path)
        database.execute("INSERT INTO lock VALUES ('fleet', 'other:1', 9e9)")
        database.commit()
        with pytest.raises(FsdeployError, match="process 1 on other"), journal.lock():
            pass
        database.execute("UPDATE lock SET expires = 1")
        database.commit()
        database.close()
        with journal.lock():
            pass


def test_looking_makes_no_journal(path: Path) -> None:
    with Journal.to_read(path) as journal:
        assert journal.latest_of_all() == ()
    assert not path.exists()


def test_a_damaged_journal_is_named(path: Path) -> None:
    path.write_bytes(b"this is no database, it is a text file" * 100)
    with pytest.raises(FsdeployError, match="cannot be read") as problem:
        Journal(path)
    assert f"sqlite3 {path} saves" in problem.value.hint


def test_hosts_are_asked_once_a_damaged_journal_is_moved_away(path: Path) -> None:
    path.write_bytes(b"this is no database, it is a text file" * 100)
    with pytest.raises(FsdeployError, match="it is damaged") as problem:
        Journal.to_read(path).latest_of_all()
    assert "Move the file away" in problem.value.hint
    path.rename(path.with_name("moved"))
    with Journal.to_read(path) as journal:
        assert journal.latest_of_all() == ()


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FsdeployError, match="format 99"):
        Journal(path)


def test_a_process_that_lost_its_lock_writes_no_more(path: Path) -> None:
    with Journal(path) as journal, journal.lock():
        number = begin(journal, "a")
        journal._db.execute("UPDATE lock SET owner = 'other:1'")
        with pytest.raises(
            FsdeployError, match="lost while this process slept; process 1 on other"
        ):
            journal.move(number, "a", State.PREFLIGHT)
        assert journal.host(number, "a").state is State.PLANNED


def test_a_long_step_does_not_lose_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RENEW_SECONDS", 0.01)
    with Journal(path) as journal, Journal(path) as other, journal.lock():
        journal._db.execute("UPDATE lock SET expires = 1")
        deadline = time.monotonic() + 60
        while not other.owner():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_next_one_waits_for_what_a_dead_owner_left_at_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEFTOVER_SECONDS", 0.1)
    with Journal(path) as journal, Journal(path) as next_one:
        with journal.lock() as held:
            worker = run.start(["cat"], stdin=subprocess.PIPE, pass_fds=[held])
        assert worker.stdin is not None
        with pytest.raises(FsdeployError, match="still at work"), next_one.lock():
            pass
        assert not journal.owner()
        worker.stdin.close()
        worker.wait()
        with next_one.lock():
            pass


def test_a_full_disk_loses_nothing_and_says_what_to_do(path: Path) -> None:
    with Journal(path) as journal:
        number = begin(journal, "a")
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(FsdeployError, match="no space is left") as problem:
            journal.move(number, "a", State.PREFLIGHT, "x" * 100_000)
        assert "free some space" in problem.value.hint
        assert "--resume" in problem.value.hint
        assert journal.host(number, "a").state is State.PLANNED
        journal._db.execute("PRAGMA max_page_count = 100000")
        journal.move(number, "a", State.PREFLIGHT, "x" * 100_000)
    with Journal(path) as journal:
        assert journal.host(number, "a").state is State.PREFLIGHT


def test_hosts_of_a_play_are_written_together_or_not_at_all(path: Path) -> None:
    with Journal(path) as journal:
        number = begin(journal, "a", "b")
        with contextlib.suppress(KeyboardInterrupt), journal.together():
            journal.move(number, "a", State.PREFLIGHT)
            raise KeyboardInterrupt
        assert journal.host(number, "a").state is State.PLANNED
        with journal.together():
            journal.move(number, "a", State.PREFLIGHT)
            journal.move(number, "b", State.PREFLIGHT)
        assert {host.state for host in journal.hosts(number)} == {State.PREFLIGHT}


def test_a_kill_in_the_middle_of_a_write_is_taken_back(path: Path) -> None:
    with Journal(path) as journal:
        number = begin(journal, *(f"h{place}" for place in range(500)))
    child = os.fork()
    if child == 0:
        journal = Journal(path)
        # So small a cache that changed pages get into the file before the commit.
        journal._db.execute("PRAGMA cache_size = 1")
        with journal.together():
            for place in range(500):
                journal.move(number, f"h{place}", State.PREFLIGHT, "x" * 500)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0
    with Journal(path) as journal:
        assert {record.state for record in journal.hosts(number)} == {State.PLANNED}


@pytest.mark.parametrize("column", ["state", "facts"])
def test_a_damaged_row_is_told_and_not_guessed(path: Path, column: str) -> None:
    with Journal(path) as journal:
        number = begin(journal, "a")
        journal._db.execute(f"UPDATE host SET {column} = '{{\"half'")
        with pytest.raises(FsdeployError, match="it is damaged") as problem:
            journal.hosts(number)
        assert "recover" in problem.value.hint


def test_a_torn_file_is_found_before_a_rollout_begins(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal, *(f"h{place}" for place in range(500)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    torn = path.read_bytes()
    with pytest.raises(FsdeployError, match="cannot be read: it is damaged"):
        Journal(path)
    assert path.read_bytes() == torn


def test_a_folder_that_cannot_be_written_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(FsdeployError, match="cannot be opened"):
        Journal(path)


FORMAT_1 = """
CREATE TABLE rollout (id INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL,
    inventory TEXT NOT NULL, release TEXT NOT NULL, request TEXT NOT NULL);
CREATE TABLE host (rollout INTEGER NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL, changed REAL NOT NULL, facts TEXT NOT NULL,
    PRIMARY KEY (rollout, name));
CREATE TABLE event (id INTEGER PRIMARY KEY, rollout INTEGER NOT NULL, host TEXT NOT NULL,
    at REAL NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE lock (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL);
INSERT INTO rollout VALUES (1, 5, NULL, 'i', 'r', '{}');
INSERT INTO host VALUES (1, 'a', 0, 'promoted', '', 6, '{"previous": "0"}'),
    (1, 'b', 1, 'planned', '', 5, '{}'), (1, 'c', 2, 'planned', '', 5, '{}');
PRAGMA user_version = 1;
"""


def test_a_journal_of_the_format_before_is_taken_over(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript(FORMAT_1)
    database.close()
    for _ in range(2):
        with Journal(path) as journal:
            assert [wave.name for wave in journal.waves(1)] == ["canaries", "the rest"]
            assert [host.name for host in journal.hosts(1, wave=2)] == ["b", "c"]
            assert journal.host(1, "a").facts == {"previous": "0"}
