# SPDX-License-Identifier: GPL-2.0-only
"""What was done to which host, when and why: an SQLite file that outlives this process.

A host's way through a rollout:

    planned → preflight → staged → armed → trial → verified → promoted
        └─────────┴→ refused  └────────┴───────┴────────┴→ rolled-back
                                        └───────┴────────┴→ lost

`refused`: nothing was changed on the host. `rolled-back`: it runs the kernel it ran before.
`lost`: it was told to boot and does not answer; once it does, `rollout --resume` goes on from its
trial boot. A host that does not answer earlier keeps the state it has. Where a step may be cut off
half way, the state says what was begun, so that `rollout --resume` knows where to go on.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fsdeploy import paths
from fsdeploy.errors import FsdeployError


class State(StrEnum):
    """Where a host stands in a rollout."""

    PLANNED = "planned"
    PREFLIGHT = "preflight"
    STAGED = "staged"
    ARMED = "armed"
    TRIAL = "trial"
    VERIFIED = "verified"
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    LOST = "lost"


FINAL = frozenset({State.PROMOTED, State.REFUSED, State.ROLLED_BACK, State.LOST})

# A state may always be written again: a resumed rollout repeats a step that was cut off.
_NEXT: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.PREFLIGHT, State.REFUSED}),
    # promoted at once: the host runs the release already.
    State.PREFLIGHT: frozenset({State.STAGED, State.REFUSED, State.ROLLED_BACK, State.PROMOTED}),
    State.STAGED: frozenset({State.ARMED, State.ROLLED_BACK}),
    State.ARMED: frozenset({State.TRIAL, State.ROLLED_BACK, State.LOST}),
    State.TRIAL: frozenset({State.VERIFIED, State.ROLLED_BACK, State.LOST}),
    State.VERIFIED: frozenset({State.PROMOTED, State.ROLLED_BACK, State.LOST}),
    State.PROMOTED: frozenset({State.ROLLED_BACK, State.LOST}),
    State.REFUSED: frozenset(),
    State.ROLLED_BACK: frozenset(),
    # It answers again: what it runs decides, as after any trial boot.
    State.LOST: frozenset({State.TRIAL, State.ROLLED_BACK}),
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollout (
    id INTEGER PRIMARY KEY,
    began REAL NOT NULL,
    ended REAL,
    inventory TEXT NOT NULL,
    release TEXT NOT NULL,
    request TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS host (
    rollout INTEGER NOT NULL REFERENCES rollout(id),
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    changed REAL NOT NULL,
    facts TEXT NOT NULL,
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
"""
_VERSION = 1
_LOCK_SECONDS = 120.0  # renewed with every event; a killed owner's lock is free after this


@dataclass(frozen=True)
class HostRecord:
    """One host in one rollout. `facts` are what later steps need: the kernel before, boot ids."""

    rollout: int
    name: str
    state: State
    reason: str
    changed: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout; `ended` is None while it runs or when it was cut off."""

    number: int
    began: float
    ended: float | None
    inventory: str
    release: str
    request: Mapping[str, Any]


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

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        if str(self.path) != ":memory:":
            self.path.parent.mkdir(parents=True, exist_ok=True)
        # Hosts are driven by threads of one process; a lock inside sqlite3 keeps them apart.
        self._db = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise FsdeployError(
                    f"the journal {self.path} has format {version}, this program knows {_VERSION}",
                    hint="use the fsdeploy that wrote it, or name another XDG_STATE_HOME",
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
            self._db.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as problem:
            raise FsdeployError(
                f"the journal {self.path} cannot be read: {problem}",
                hint="move the file away; hosts can still be asked with fsdeploy status --live",
            ) from None

    @classmethod
    def to_read(cls, path: Path | None = None) -> Journal:
        """The journal for a command that only looks: none is made where there is none."""
        where = path or default_path()
        return cls(where if where.exists() else Path(":memory:"))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # One rollout at a time.

    @contextmanager
    def lock(self, name: str = "fleet") -> Iterator[None]:
        """Hold the fleet for the length of a block; FsdeployError when someone else holds it."""
        owner = _owner()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("SELECT * FROM lock WHERE name = ?", (name,)).fetchone()
            if row and row["expires"] > time.time() and _is_alive(row["owner"]):
                machine, _, number = row["owner"].rpartition(":")
                raise FsdeployError(
                    f"a rollout is running: process {number} on {machine} holds the fleet",
                    hint="wait for it, or end it; its lock is free two minutes after its end",
                )
            self._db.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?)",
                (name, owner, time.time() + _LOCK_SECONDS),
            )
        try:
            yield
        finally:
            with self._db:
                self._db.execute("DELETE FROM lock WHERE name = ? AND owner = ?", (name, owner))

    def renew(self, name: str = "fleet") -> None:
        """Say that the owner of the lock is still at work."""
        with self._db:
            self._db.execute(
                "UPDATE lock SET expires = ? WHERE name = ? AND owner = ?",
                (time.time() + _LOCK_SECONDS, name, _owner()),
            )

    # Rollouts.

    def begin(
        self, *, inventory: str, release: str, hosts: Sequence[str], request: Mapping[str, Any]
    ) -> int:
        """Record a new rollout with its hosts, all `planned`. Returns its number."""
        now = time.time()
        with self._db:
            cursor = self._db.execute(
                "INSERT INTO rollout (began, inventory, release, request) VALUES (?, ?, ?, ?)",
                (now, inventory, release, json.dumps(dict(request), sort_keys=True)),
            )
            number = cursor.lastrowid
            assert number is not None
            for position, host in enumerate(hosts):
                self._db.execute(
                    "INSERT INTO host VALUES (?, ?, ?, ?, '', ?, '{}')",
                    (number, host, position, State.PLANNED, now),
                )
                self._event(number, host, now, State.PLANNED, "")
        return number

    def finish(self, rollout: int) -> None:
        """Nothing more is to be done in this rollout."""
        with self._db:
            self._db.execute("UPDATE rollout SET ended = ? WHERE id = ?", (time.time(), rollout))

    def reopen(self, rollout: int) -> None:
        """Go on with a rollout that was ended."""
        with self._db:
            self._db.execute("UPDATE rollout SET ended = NULL WHERE id = ?", (rollout,))

    def rollout(self, number: int) -> RolloutRecord:
        """The rollout of that number."""
        row = self._db.execute("SELECT * FROM rollout WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise FsdeployError(f"the journal {self.path} has no rollout {number}")
        return _rollout_record(row)

    def latest(self) -> RolloutRecord | None:
        """The last rollout."""
        row = self._db.execute("SELECT * FROM rollout ORDER BY id DESC LIMIT 1").fetchone()
        return _rollout_record(row) if row else None

    def hosts(self, rollout: int) -> tuple[HostRecord, ...]:
        """The hosts of a rollout, in its order."""
        rows = self._db.execute(
            "SELECT * FROM host WHERE rollout = ? ORDER BY position", (rollout,)
        ).fetchall()
        return tuple(_host_record(row) for row in rows)

    def host(self, rollout: int, name: str) -> HostRecord:
        """One host of a rollout."""
        row = self._db.execute(
            "SELECT * FROM host WHERE rollout = ? AND name = ?", (rollout, name)
        ).fetchone()
        if row is None:
            raise FsdeployError(f"rollout {rollout} has no host {name}")
        return _host_record(row)

    def latest_of(self, name: str) -> HostRecord | None:
        """What the journal last knows about a host, over all rollouts."""
        row = self._db.execute(
            "SELECT * FROM host WHERE name = ? ORDER BY changed DESC, rollout DESC LIMIT 1", (name,)
        ).fetchone()
        return _host_record(row) if row else None

    def latest_touched(self, name: str) -> HostRecord | None:
        """The last rollout that got past the preflight of a host and so knows its kernel before."""
        rows = self._db.execute(
            "SELECT * FROM host WHERE name = ? ORDER BY changed DESC, rollout DESC", (name,)
        ).fetchall()
        return next(
            (item for row in rows if (item := _host_record(row)).facts.get("previous")), None
        )

    def known_hosts(self) -> tuple[str, ...]:
        """Names of all hosts that were ever in a rollout."""
        rows = self._db.execute(
            "SELECT name FROM host GROUP BY name ORDER BY MAX(rollout) DESC, MIN(position)"
        ).fetchall()
        return tuple(row["name"] for row in rows)

    def events(self, rollout: int, host: str) -> tuple[Event, ...]:
        """A host's story in a rollout, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM event WHERE rollout = ? AND host = ? ORDER BY id", (rollout, host)
        ).fetchall()
        return tuple(
            Event(row["host"], row["at"], State(row["state"]), row["reason"]) for row in rows
        )

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
        record = self.host(rollout, host)
        if state != record.state and state not in _NEXT[record.state]:
            raise ValueError(f"{host}: no way leads from {record.state} to {state}")
        now = time.time()
        known = {**record.facts, **(facts or {})}
        with self._db:
            self._db.execute(
                "UPDATE host SET state = ?, reason = ?, changed = ?, facts = ?"
                " WHERE rollout = ? AND name = ?",
                (state, reason, now, json.dumps(known, sort_keys=True), rollout, host),
            )
            self._event(rollout, host, now, state, reason)
            self._db.execute(
                "UPDATE lock SET expires = ? WHERE owner = ?", (now + _LOCK_SECONDS, _owner())
            )

    def _event(self, rollout: int, host: str, at: float, state: State, reason: str) -> None:
        self._db.execute(
            "INSERT INTO event (rollout, host, at, state, reason) VALUES (?, ?, ?, ?, ?)",
            (rollout, host, at, state, reason),
        )


def _rollout_record(row: sqlite3.Row) -> RolloutRecord:
    return RolloutRecord(
        row["id"],
        row["began"],
        row["ended"],
        row["inventory"],
        row["release"],
        json.loads(row["request"]),
    )


def _host_record(row: sqlite3.Row) -> HostRecord:
    return HostRecord(
        row["rollout"],
        row["name"],
        State(row["state"]),
        row["reason"],
        row["changed"],
        json.loads(row["facts"]),
    )
