# SPDX-License-Identifier: GPL-2.0-only
"""Why a host stands where it stands, in one sentence. From the journal alone; changes nothing."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.journal import (
    Event,
    HostRecord,
    Journal,
    RolloutRecord,
    WaveRecord,
    owner_name,
)
from fsdeploy.fleet.states import FINAL, HALF_WAY, STEPS, State


@dataclass(frozen=True)
class Progress:
    """A rollout as a whole: its waves, hosts of each by state, and who drives it at `now`."""

    rollout: RolloutRecord
    waves: Sequence[WaveRecord]
    counts: Mapping[int, Mapping[State, int]]
    owner: str
    now: float

    @property
    def is_open(self) -> bool:
        """Whether something is left to do."""
        return any(self.left(wave) for wave in self.waves)

    def size(self, wave: WaveRecord) -> int:
        """How many hosts a wave has."""
        return sum(self.counts.get(wave.number, {}).values())

    def left(self, wave: WaveRecord) -> int:
        """How many of them are not at an end."""
        counts = self.counts.get(wave.number, {})
        return sum(many for state, many in counts.items() if state not in FINAL)

    def soak_left(self, wave: WaveRecord) -> float:
        """Seconds until the soak of a wave ends; 0 when it does not soak."""
        if wave.ended is None or wave.soaked is not None:
            return 0.0
        return max(0.0, wave.ended + wave.soak - self.now)

    @property
    def sentence(self) -> str:
        """Where the rollout is."""
        number = self.rollout.number
        if self.owner:
            return f"rollout {number} is running ({owner_name(self.owner)})"
        if self.rollout.stopped:
            return f"rollout {number} stopped: {self.rollout.stopped}"
        if self.rollout.ended is None:
            return f"rollout {number} was cut off; fsdeploy rollout --resume goes on with it"
        if self.is_open:
            return (
                f"rollout {number} ended without hosts that did not answer; fsdeploy rollout"
                " --resume goes on with them"
            )
        return f"rollout {number} is at its end"


def progress_of(journal: Journal, rollout: RolloutRecord) -> Progress:
    """The progress of a rollout now. Only the last one can have an owner."""
    latest = journal.latest()
    mine = latest is not None and latest.number == rollout.number and rollout.ended is None
    return Progress(
        rollout,
        journal.waves(rollout.number),
        journal.counts(rollout.number),
        journal.owner() if mine else "",
        time.time(),
    )


def explain(record: HostRecord, progress: Progress) -> str:
    """The sentence for a host."""
    state, reason, release = record.state, record.reason, progress.rollout.release
    if state is State.PROMOTED:
        return f"promoted: runs {release} by default" + (f"; {reason}" if reason else "")
    if state in FINAL:
        return f"{_words(state)}: {reason}"
    wave = next(item for item in progress.waves if item.number == record.wave)
    title = f"wave {wave.number} ({wave.name})"
    if progress.owner and wave.began is not None and wave.ended is None:
        following = _following(state)
        return f"at work in {title}: {_words(state)}; next: {following}"
    if state in HALF_WAY:
        done = "passed its checks, not promoted" if state is State.VERIFIED else _words(state)
        return f"{done}; {reason or progress.sentence}"
    if reason and wave.ended is not None:
        return f"{_words(state)}: {reason}; fsdeploy rollout --resume takes it up again"
    if not progress.owner:
        return f"waiting for {title}: {progress.sentence}"
    return f"waiting for {title}: {_before(wave, progress)}"


def _before(wave: WaveRecord, progress: Progress) -> str:
    """What a wave waits for while the rollout runs."""
    for earlier in progress.waves:
        if earlier.number >= wave.number:
            break
        left = progress.soak_left(earlier)
        if left:
            return f"the soak of wave {earlier.number} ends in {ui.duration(left)}"
        if progress.left(earlier):
            done = progress.size(earlier) - progress.left(earlier)
            at_work = "is at work" if earlier.began is not None else "comes first"
            return (
                f"wave {earlier.number} ({earlier.name}) {at_work}, {done} of"
                f" {progress.size(earlier)} hosts done"
            )
    return "it is about to begin"


def _following(state: State) -> str:
    """The step after a state."""
    done = [step for step, _ in STEPS]
    place = done.index(state) + 1 if state in done else 0
    return STEPS[place][1]


def _words(state: State) -> str:
    return str(state).replace("-", " ")


@dataclass(frozen=True)
class Why:
    """A host's sentence and its story in its last rollout, oldest first."""

    host: str
    state: State
    sentence: str
    record: HostRecord
    progress: Progress
    story: tuple[Event, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        wave = next(item for item in self.progress.waves if item.number == self.record.wave)
        return {
            "host": self.host,
            "state": str(self.state),
            "why": self.sentence,
            "rollout": self.record.rollout,
            "release": self.progress.rollout.release,
            "wave": {"number": wave.number, "name": wave.name},
            "class": self.record.hardware,
            "previous": self.record.facts.get("previous"),
            "running": bool(self.progress.owner),
            "story": [
                {"at": event.at, "state": str(event.state), "reason": event.reason}
                for event in self.story
            ],
        }


def why(host: str, *, journal: Journal | None = None) -> Why:
    """Why a host stands where it stands. FsdeployError when the journal never heard of it."""
    book = journal or Journal.to_read()
    try:
        record = book.latest_of(host)
        if record is None:
            known = [item.name for item in book.latest_of_all()]
            near = difflib.get_close_matches(host, known, n=1)
            raise FsdeployError(
                f"{host} was never in a rollout",
                hint=f"did you mean {near[0]}?" if near else "fsdeploy status lists the hosts",
            )
        progress = progress_of(book, book.rollout(record.rollout))
        story = book.events(record.rollout, host)
        return Why(host, record.state, explain(record, progress), record, progress, story)
    finally:
        if journal is None:
            book.close()
