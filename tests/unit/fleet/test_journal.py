"""The journal: order of states, what outlives the process, one rollout at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
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
        with journal.lock(), pytest.raises(FsdeployError, match="a rollout is running"):
            other.lock().__enter__()
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
    with pytest.raises(FsdeployError, match="cannot be read"):
        Journal(path)


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FsdeployError, match="format 99"):
        Journal(path)
