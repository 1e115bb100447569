"""The sentence of a host, in each situation that a rollout can be in."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from fsdeploy import cli
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Candidate, Policy, plan_rollout
from fsdeploy.fleet.states import State
from fsdeploy.fleet.status import fleet_status
from fsdeploy.fleet.why import why
from tests.unit.fleet.fakes import NEW, OLD

WAY = (State.PREFLIGHT, State.STAGED, State.ARMED, State.TRIAL, State.VERIFIED, State.PROMOTED)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """A rollout in three waves, a and b and c; where `fsdeploy why` looks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    book = Journal()
    hosts = [Candidate(name, "metal") for name in "abc"]
    plan = plan_rollout(NEW, hosts, Policy(shares=(33.0,), soak=600, at_once=1))
    assert [wave.names for wave in plan.waves] == [("a",), ("b",), ("c",)]
    book.begin(plan, inventory="i", request={})
    return book


def through(journal: Journal, host: str, until: State, reason: str = "") -> None:
    way = WAY[: WAY.index(until) + 1] if until in WAY else (*WAY[:4], until)
    for state in way:
        journal.move(1, host, state, reason if state is until else "", {"previous": OLD})


def sentence(journal: Journal, host: str) -> str:
    return why(host, journal=journal).sentence


def test_a_host_waits_for_the_wave_before(journal: Journal) -> None:
    with journal.lock():
        journal.mark_wave(1, 1, "began", time.time())
        through(journal, "a", State.ARMED)
        told = "waiting for wave 2 (33 %): wave 1 (canaries) is at work, 0 of 1 hosts done"
        assert sentence(journal, "b") == told
        assert sentence(journal, "a") == "at work in wave 1 (canaries): armed; next: boot"


def test_a_host_waits_for_the_end_of_a_soak(journal: Journal) -> None:
    with journal.lock():
        journal.mark_wave(1, 1, "began", time.time())
        through(journal, "a", State.PROMOTED)
        journal.mark_wave(1, 1, "ended", time.time() - 420)
        assert "waiting for wave 2 (33 %): the soak of wave 1 ends in " in sentence(journal, "b")
        (wave, *_) = fleet_status(journal=journal).as_dict()["rollout"]["waves"]
        assert 0 < wave["soak_left"] <= 180
        assert sentence(journal, "a") == f"promoted: runs {NEW} by default"


def test_without_its_process_a_rollout_is_cut_off(journal: Journal) -> None:
    journal.mark_wave(1, 1, "began", time.time())
    through(journal, "a", State.TRIAL)
    assert "rollout 1 was cut off; fsdeploy rollout --resume" in sentence(journal, "a")
    assert sentence(journal, "b").startswith("waiting for wave 2 (33 %): rollout 1 was cut off")
    assert fleet_status(journal=journal).open_rollout == 1


def test_a_stopped_rollout_says_why(journal: Journal) -> None:
    through(journal, "a", State.ROLLED_BACK, "panicked, Kernel panic - not syncing")
    journal.finish(1, "1 host failed, the budget is 0: a")
    assert sentence(journal, "a") == "rolled back: panicked, Kernel panic - not syncing"
    assert sentence(journal, "b") == (
        "waiting for wave 2 (33 %): rollout 1 stopped: 1 host failed, the budget is 0: a"
    )


def test_a_verified_host_of_a_stopped_rollout(journal: Journal) -> None:
    through(journal, "a", State.VERIFIED)
    journal.finish(1, "enough")
    assert sentence(journal, "a") == ("passed its checks, not promoted; rollout 1 stopped: enough")


def test_a_host_that_did_not_answer(journal: Journal) -> None:
    journal.mark_wave(1, 1, "began", time.time())
    journal.move(1, "a", State.PLANNED, "does not answer over SSH")
    journal.mark_wave(1, 1, "ended", time.time())
    journal.finish(1)
    assert sentence(journal, "a") == (
        "planned: does not answer over SSH; fsdeploy rollout --resume takes it up again"
    )


def test_an_unknown_host_and_its_neighbour(journal: Journal) -> None:
    journal.finish(1)
    with pytest.raises(FsdeployError, match="was never in a rollout"):
        why("elsewhere", journal=journal)


@pytest.mark.usefixtures("journal")
def test_the_commands_and_their_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["why", "a", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["wave"] == {"number": 1, "name": "canaries"}
    assert told["state"] == "planned"
    assert [event["state"] for event in told["story"]] == ["planned"]
    assert cli.main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rollout"]["budget"] == 0
    assert [wave["hosts"] for wave in told["rollout"]["waves"]] == [1, 1, 1]
    assert cli.main(["status"]) == 0
    text = capsys.readouterr().out
    assert "canaries" in text
    assert "rollout 1 was cut off" in text
    assert cli.main(["why", "z"]) == 2
