# SPDX-License-Identifier: GPL-2.0-only
"""What was done to which host, when and why: an SQLite file that outlives this process.

Every write is one transaction and on disk when the call returns; what a power cut leaves half
written, SQLite takes back when the file is opened next. states.py has the way of a host,
standing.py why a rollout that was cut off can go on from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import paths, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.plan import RolloutPlan
from fsdeploy.fleet.states import NEXT, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollout (
    id INTEGER PRIMARY KEY,
    began REAL NOT NULL,
    ended REAL,
    inventory TEXT NOT NULL,
    release TEXT NOT NULL,
    request TEXT NOT NULL,
    budget INTEGER NOT NULL DEFAULT 0,
    stopped TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS wave (
    rollout INTEGER NOT NULL REFERENCES rollout(id),
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    canary INTEGER NOT NULL,
    soak REAL NOT NULL,
    began REAL,
    ended REAL,
    soaked REAL,
    PRIMARY KEY (rollout, number)
);
CREATE TABLE IF NOT EXISTS host (
    rollout INTEGER NOT NULL REFERENCES rollout(id),
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    changed REAL NOT NULL,
    facts TEXT NOT NULL,
    wave INTEGER NOT NULL DEFAULT 1,
    hardware TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (rollout, name)
);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY,
    rollout INTEGER NOT NULL REFERENCES rollout(id),
    host TEXT NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS lock (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS host_name ON host (name, changed, rollout);
CREATE INDEX IF NOT EXISTS event_host ON event (host, rollout);
"""
# From format 1, which had one host in the first wave and the others in the second.
_FROM_1 = """
ALTER TABLE rollout ADD COLUMN budget INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollout ADD COLUMN stopped TEXT NOT NULL DEFAULT '';
ALTER TABLE host ADD COLUMN wave INTEGER NOT NULL DEFAULT 1;
ALTER TABLE host ADD COLUMN hardware TEXT NOT NULL DEFAULT '';
UPDATE host SET wave = 2 WHERE position > 0;
INSERT INTO wave (rollout, number, name, canary, soak)
    SELECT DISTINCT rollout, wave,
        CASE wave WHEN 1 THEN 'canaries' ELSE 'the rest' END, wave = 1, 0 FROM host;
"""
_VERSION = 2
_LOCK_SECONDS = 120.0  # renewed while its owner lives; a lock of another machine is free after this
_RENEW_SECONDS = 30.0
_LEFTOVER_SECONDS = 900.0  # how long what a killed run began may take to end

_RESUME = "then fsdeploy rollout --resume: hosts are asked where they stand, nothing is done twice"
# What SQLite says, by its primary code: (what it means, what to do).
_TROUBLE: Mapping[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("no space is left for it", f"free some space, {_RESUME}"),
    sqlite3.SQLITE_IOERR: (
        "its disk does not take or give the data",
        f"look at its disk (space, quota, dmesg), {_RESUME}",
    ),
    sqlite3.SQLITE_BUSY: (
        "another program holds it",
        f"close what has it open (fuser FILE says what), {_RESUME}",
    ),
    sqlite3.SQLITE_READONLY: ("it cannot be written", f"look at its owner and mode, {_RESUME}"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "look at the folder's owner and mode"),
}
_DAMAGED_HINT = (
    "nothing was changed in it; no host is in danger: one on trial boots its old kernel next. Move"
    " the file away: sqlite3 MOVED .recover | sqlite3 FILE saves what is there, and without a"
    " journal fsdeploy status --live --inventory HOSTS asks hosts what they run and fsdeploy"
    " rollback takes them back"
)


@dataclass(frozen=True)
class HostRecord:
    """One host in one rollout. `facts` are what later steps need: the kernel before, boot ids."""

    rollout: int
    name: str
    state: State
    reason: str
    changed: float
    facts: Mapping[str, Any]
    wave: int = 1
    hardware: str = ""


@dataclass(frozen=True)
class WaveRecord:
    """One wave. `ended`: its hosts came to an end; `soaked`: they were looked at after the soak."""

    number: int
    name: str
    canary: bool
    soak: float
    began: float | None
    ended: float | None
    soaked: float | None


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout; `ended` is None while it runs or when it was cut off."""

    number: int
    began: float
    ended: float | None
    inventory: str
    release: str
    request: Mapping[str, Any]
    budget: int = 0
    stopped: str = ""


@dataclass(frozen=True)
class Event:
    """A line of a host's story."""

    host: str
    at: float
    state: State
    reason: str


def default_path() -> Path:
    """Where the journal of this user is."""
    return paths.state_dir() / "journal.sqlite3"


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def owner_name(owner: str) -> str:
    """The owner of a lock in a person's words."""
    machine, _, number = owner.rpartition(":")
    return f"process {number} on {machine}"


def _is_alive(owner: str) -> bool:
    """Whether the process behind a lock still runs; a lock of another machine counts as alive."""
    machine, _, number = owner.rpartition(":")
    if machine != socket.gethostname() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Journal:
    """The open journal. Every write is one transaction, on disk when the call returns."""

    def __init__(self, path: Path | None = None, *, check: bool = True) -> None:
        self.path = path or default_path()
        self._owned = ""
        self._depth = 0
        if str(self.path) != ":memory:":
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._trouble():
            # Hosts are driven by threads of one process; a lock inside sqlite3 keeps them apart.
            self._db = sqlite3.connect(
                self.path, timeout=30, check_same_thread=False, isolation_level=None
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA synchronous = FULL")
            if check:
                (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise self._damaged(found)
            self._format()

    def _format(self) -> None:
        if self._version() == _VERSION:
            return
        with self._write():
            version = self._version()
            if version not in (0, 1, _VERSION):
                raise FsdeployError(
                    f"the journal {self.path} has format {version}, this program knows {_VERSION}",
                    hint="use the fsdeploy that wrote it, or name another XDG_STATE_HOME",
                )
            old = [_SCHEMA] if version == 0 else [_SCHEMA.split("CREATE INDEX")[0], _FROM_1]
            for statement in ";".join([*old, _SCHEMA]).split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @classmethod
    def to_read(cls, path: Path | None = None) -> Journal:
        """The journal for a command that only looks: none is made where there is none."""
        where = path or default_path()
        return cls(where if where.exists() else Path(":memory:"), check=False)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading, writing, and what goes wrong there.

    def _damaged(self, detail: object) -> FsdeployError:
        return FsdeployError(
            f"the journal {self.path} cannot be read: it is damaged ({detail})",
            hint=_DAMAGED_HINT.replace("FILE", str(self.path)),
        )

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """What SQLite cannot do, in words that help."""
        try:
            yield
        except sqlite3.Error as problem:
            code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
            if code in _TROUBLE:
                what, hint = _TROUBLE[code]
                raise FsdeployError(
                    f"the journal {self.path}: {what} ({problem})",
                    hint=hint.replace("FILE", str(self.path)),
                ) from None
            raise self._damaged(problem) from None

    def _read(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._trouble():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[None]:
        """A transaction; one inside another belongs to the outer."""
        if self._depth:
            yield
            return
        with self._trouble():
            self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                self._still_ours()
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk ends the transaction by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written in the block is written as one: all of it or nothing."""
        with self._write():
            yield

    def _still_ours(self) -> None:
        """A process that slept past its lock's expiry must not write into another's rollout."""
        if not self._owned:
            return
        row = self._db.execute("SELECT owner FROM lock WHERE name = ?", (self._owned,)).fetchone()
        if row is None or row["owner"] != _owner():
            holder = owner_name(row["owner"]) if row else "nobody"
            raise FsdeployError(
                f"the fleet's lock was lost while this process slept; {holder} holds it now",
                hint="fsdeploy status shows where hosts stand; go on there, or later with --resume",
            )

    def _state(self, row: sqlite3.Row) -> State:
        try:
            return State(row["state"])
        except ValueError as problem:
            raise self._damaged(problem) from None

    def _json(self, text: str) -> Mapping[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as problem:
            raise self._damaged(problem) from None
        if not isinstance(value, dict):
            raise self._damaged("facts are no mapping")
        return value

    # One rollout at a time.

    def owner(self, name: str = "fleet") -> str:
        """Who holds the fleet, empty when nobody does who still lives."""
        rows = self._read("SELECT * FROM lock WHERE name = ?", (name,))
        if rows and rows[0]["expires"] > time.time() and _is_alive(rows[0]["owner"]):
            return str(rows[0]["owner"])
        return ""

    @contextmanager
    def lock(self, name: str = "fleet") -> Iterator[int]:
        """Hold the fleet for the length of a block; FsdeployError when someone else holds it.

        Gives a file descriptor for processes that work on hosts for us. Whoever has it open still
        works for this owner, even when the owner is dead: the next one waits for them.
        """
        owner = _owner()
        with self._write():
            holder = self.owner(name)
            if holder:
                raise FsdeployError(
                    f"a rollout is running: {owner_name(holder)} holds the fleet",
                    hint="wait for it, or end it and go on with fsdeploy rollout --resume; the lock"
                    " of a process that died on another machine is free after two minutes",
                )
            self._db.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?)",
                (name, owner, time.time() + _LOCK_SECONDS),
            )
            self._owned = name
        with contextlib.ExitStack() as stack:
            stack.callback(self._let_go, name, owner)
            stack.enter_context(_renewing(lambda: self._renew(name, owner)))
            yield stack.enter_context(self._leftovers_gone(name))

    def _let_go(self, name: str, owner: str) -> None:
        self._owned = ""
        # On a full disk it stays; that its owner is dead is seen without it.
        with contextlib.suppress(FsdeployError), self._write():
            self._db.execute("DELETE FROM lock WHERE name = ? AND owner = ?", (name, owner))

    def _renew(self, name: str, owner: str) -> None:
        # A connection of its own: this is another thread, and a transaction may be under way.
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            database.execute(
                "UPDATE lock SET expires = ? WHERE name = ? AND owner = ?",
                (time.time() + _LOCK_SECONDS, name, owner),
            )

    @contextmanager
    def _leftovers_gone(self, name: str) -> Iterator[int]:
        path = self.path.with_name(f"{self.path.name}.{name}-lock")
        with path.open("a") as stream:
            if not _take(stream.fileno()):
                with ui.step("waiting for what the run before left at work on hosts"):
                    deadline = time.monotonic() + _LEFTOVER_SECONDS
                    while not _take(stream.fileno()):
                        if time.monotonic() > deadline:
                            raise FsdeployError(
                                "processes of a rollout that was cut off are still at work",
                                hint=f"fuser {path} names them; wait, or end them and resume",
                            )
                        time.sleep(0.5)
            yield stream.fileno()

    # Rollouts.

    def begin(self, plan: RolloutPlan, *, inventory: str, request: Mapping[str, Any]) -> int:
        """Record a new rollout with its waves and hosts, all `planned`. Returns its number."""
        now = time.time()
        with self._write():
            cursor = self._db.execute(
                "INSERT INTO rollout (began, inventory, release, request, budget)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    now,
                    inventory,
                    plan.release,
                    json.dumps(dict(request), sort_keys=True),
                    plan.budget,
                ),
            )
            number = cursor.lastrowid
            assert number is not None
            self._db.executemany(
                "INSERT INTO wave (rollout, number, name, canary, soak) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, wave.number, wave.name, wave.is_canary, wave.soak)
                    for wave in plan.waves
                ],
            )
            hosts = [(wave, host) for wave in plan.waves for host in wave.hosts]
            self._db.executemany(
                "INSERT INTO host VALUES (?, ?, ?, ?, '', ?, '{}', ?, ?)",
                [
                    (number, host.name, place, State.PLANNED, now, wave.number, host.hardware)
                    for place, (wave, host) in enumerate(hosts)
                ],
            )
            self._db.executemany(
                "INSERT INTO event (rollout, host, at, state, reason) VALUES (?, ?, ?, ?, '')",
                [(number, host.name, now, State.PLANNED) for _, host in hosts],
            )
        return number

    def finish(self, rollout: int, stopped: str = "") -> None:
        """Nothing more is to be done in this rollout now; `stopped` says why, if not all was."""
        with self._write():
            self._db.execute(
                "UPDATE rollout SET ended = ?, stopped = ? WHERE id = ?",
                (time.time(), stopped, rollout),
            )

    def reopen(self, rollout: int, *, budget: int | None = None) -> None:
        """Go on with a rollout that was ended or cut off."""
        with self._write():
            self._db.execute(
                "UPDATE rollout SET ended = NULL, stopped = '', budget = COALESCE(?, budget)"
                " WHERE id = ?",
                (budget, rollout),
            )

    def mark_wave(self, rollout: int, number: int, what: str, at: float) -> None:
        """Note that a wave `began`, `ended` or was `soaked`, at a time in seconds since 1970."""
        assert what in ("began", "ended", "soaked")
        with self._write():
            self._db.execute(
                f"UPDATE wave SET {what} = ? WHERE rollout = ? AND number = ?",
                (at, rollout, number),
            )

    def waves(self, rollout: int) -> tuple[WaveRecord, ...]:
        """The waves of a rollout, in order."""
        rows = self._read("SELECT * FROM wave WHERE rollout = ? ORDER BY number", (rollout,))
        return tuple(
            WaveRecord(
                row["number"],
                row["name"],
                bool(row["canary"]),
                row["soak"],
                row["began"],
                row["ended"],
                row["soaked"],
            )
            for row in rows
        )

    def rollout(self, number: int) -> RolloutRecord:
        """The rollout of that number."""
        rows = self._read("SELECT * FROM rollout WHERE id = ?", (number,))
        if not rows:
            raise FsdeployError(f"the journal {self.path} has no rollout {number}")
        return self._rollout_record(rows[0])

    def rollouts(self) -> Mapping[int, RolloutRecord]:
        """All rollouts by number."""
        rows = self._read("SELECT * FROM rollout")
        return {row["id"]: self._rollout_record(row) for row in rows}

    def latest(self) -> RolloutRecord | None:
        """The last rollout."""
        rows = self._read("SELECT * FROM rollout ORDER BY id DESC LIMIT 1")
        return self._rollout_record(rows[0]) if rows else None

    def hosts(self, rollout: int, *, wave: int | None = None) -> tuple[HostRecord, ...]:
        """The hosts of a rollout, or of one of its waves, in order."""
        rows = self._read(
            "SELECT * FROM host WHERE rollout = ? AND wave = COALESCE(?, wave) ORDER BY position",
            (rollout, wave),
        )
        return tuple(self._host_record(row) for row in rows)

    def counts(self, rollout: int) -> Mapping[int, Mapping[State, int]]:
        """How many hosts of each wave are in each state."""
        found: dict[int, dict[State, int]] = {}
        for row in self._read(
            "SELECT wave, state, COUNT(*) AS many FROM host WHERE rollout = ? GROUP BY wave, state",
            (rollout,),
        ):
            found.setdefault(row["wave"], {})[self._state(row)] = row["many"]
        return found

    def host(self, rollout: int, name: str) -> HostRecord:
        """One host of a rollout."""
        rows = self._read("SELECT * FROM host WHERE rollout = ? AND name = ?", (rollout, name))
        if not rows:
            raise FsdeployError(f"rollout {rollout} has no host {name}")
        return self._host_record(rows[0])

    def latest_of(self, name: str) -> HostRecord | None:
        """What the journal last knows about a host, over all rollouts."""
        rows = self._read(
            "SELECT * FROM host WHERE name = ? ORDER BY changed DESC, rollout DESC LIMIT 1", (name,)
        )
        return self._host_record(rows[0]) if rows else None

    def latest_of_all(self) -> tuple[HostRecord, ...]:
        """What the journal last knows about every host; those of the last rollout first."""
        rows = self._read(
            "SELECT * FROM (SELECT *, MAX(rollout) OVER (PARTITION BY name) AS newest,"
            " ROW_NUMBER() OVER (PARTITION BY name ORDER BY changed DESC, rollout DESC) AS place"
            " FROM host) WHERE place = 1 ORDER BY newest DESC, position"
        )
        return tuple(self._host_record(row) for row in rows)

    def latest_touched(self, name: str) -> HostRecord | None:
        """The last rollout that got past the preflight of a host and so knows its kernel before."""
        rows = self._read(
            "SELECT * FROM host WHERE name = ? ORDER BY changed DESC, rollout DESC", (name,)
        )
        return next(
            (item for row in rows if (item := self._host_record(row)).facts.get("previous")), None
        )

    def half_way(self, names: Sequence[str], states: Sequence[State]) -> tuple[HostRecord, ...]:
        """Those of the hosts that some rollout left in one of the states."""
        marks = ", ".join("?" * len(states))
        rows = self._read(f"SELECT * FROM host WHERE state IN ({marks})", [*states])
        wanted = set(names)
        return tuple(self._host_record(row) for row in rows if row["name"] in wanted)

    def events(self, rollout: int, host: str) -> tuple[Event, ...]:
        """A host's story in a rollout, oldest first."""
        rows = self._read(
            "SELECT * FROM event WHERE rollout = ? AND host = ? ORDER BY id", (rollout, host)
        )
        return tuple(Event(row["host"], row["at"], self._state(row), row["reason"]) for row in rows)

    def move(
        self,
        rollout: int,
        host: str,
        state: State,
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a host to a state, with the reason; `facts` are added to what is known of it.

        ValueError when the way does not lead there: that is a mistake of ours, not of a user.
        """
        with self._write():
            record = self.host(rollout, host)
            if state != record.state and state not in NEXT[record.state]:
                raise ValueError(f"{host}: no way leads from {record.state} to {state}")
            now = time.time()
            known = {**record.facts, **(facts or {})}
            self._db.execute(
                "UPDATE host SET state = ?, reason = ?, changed = ?, facts = ?"
                " WHERE rollout = ? AND name = ?",
                (state, reason, now, json.dumps(known, sort_keys=True), rollout, host),
            )
            self._db.execute(
                "INSERT INTO event (rollout, host, at, state, reason) VALUES (?, ?, ?, ?, ?)",
                (rollout, host, now, state, reason),
            )

    def learn(self, rollout: int, host: str, **facts: Any) -> None:
        """Add to what is known of a host, in the state it is in."""
        with self._write():
            record = self.host(rollout, host)
            known = {**record.facts, **facts}
            if known != record.facts:
                self._db.execute(
                    "UPDATE host SET facts = ? WHERE rollout = ? AND name = ?",
                    (json.dumps(known, sort_keys=True), rollout, host),
                )

    def _rollout_record(self, row: sqlite3.Row) -> RolloutRecord:
        return RolloutRecord(
            row["id"],
            row["began"],
            row["ended"],
            row["inventory"],
            row["release"],
            self._json(row["request"]),
            row["budget"],
            row["stopped"],
        )

    def _host_record(self, row: sqlite3.Row) -> HostRecord:
        return HostRecord(
            row["rollout"],
            row["name"],
            self._state(row),
            row["reason"],
            row["changed"],
            self._json(row["facts"]),
            row["wave"],
            row["hardware"],
        )


def _take(descriptor: int) -> bool:
    """Try for the lock of an open file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _renewing(renew: Callable[[], None]) -> Iterator[None]:
    """Call `renew` now and then, however long the block takes."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(_RENEW_SECONDS):
            # The next write of the rollout itself tells what is wrong.
            with contextlib.suppress(sqlite3.Error):
                renew()

    keeper = threading.Thread(target=keep, name="lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
