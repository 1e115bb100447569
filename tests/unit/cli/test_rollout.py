"""What `fsdeploy rollout` takes, and what it says no to before anything is done."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from fsdeploy.cli import rollout as command
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollout import ResumeRequest, RolloutReport, RolloutRequest


@pytest.fixture(autouse=True)
def no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


class Asked(Exception):
    """Ends a command where it would begin."""


def ask(monkeypatch: pytest.MonkeyPatch, line: str) -> RolloutRequest | ResumeRequest:
    asked: list[RolloutRequest | ResumeRequest] = []

    def stand_in(request: RolloutRequest | ResumeRequest) -> RolloutReport:
        asked.append(request)
        raise Asked

    monkeypatch.setattr(command, "rollout", stand_in)
    monkeypatch.setattr(command, "resume", stand_in)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with pytest.raises(Asked):
        command.main(parser.parse_args(shlex.split(line)))
    (request,) = asked
    return request


def refuse(line: str) -> str:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with pytest.raises(FsdeployError) as problem:
        command.main(parser.parse_args(shlex.split(line)))
    return problem.value.message


def test_an_operator_sets_the_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(
        monkeypatch,
        "-i hosts.yml --kernel k.rpm --waves 1,10,50 --soak 2h --budget 3 --at-once 20"
        " --trial-timeout 5m --power-command 'ipmi {host} cycle'",
    )
    assert isinstance(request, RolloutRequest)
    assert request.policy == Policy((1.0, 10.0, 50.0), 7200.0, 3, 20)
    assert request.trial_timeout == 300
    assert request.power_command == "ipmi {host} cycle"


def test_without_options_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(monkeypatch, "-i hosts.yml --kernel k.rpm")
    assert request == RolloutRequest(Path("hosts.yml"), Path("k.rpm"))


def test_hosts_are_told_the_key_and_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = "--key fleet.asc --repository http://repo/fsdeploy"
    request = ask(monkeypatch, f"-i hosts.yml --kernel k.rpm {signed}")
    assert isinstance(request, RolloutRequest)
    assert (request.key, request.repository) == (Path("fleet.asc"), "http://repo/fsdeploy")
    again = ask(monkeypatch, f"--resume {signed}")
    assert again == ResumeRequest(key=Path("fleet.asc"), repository="http://repo/fsdeploy")


def test_a_resume_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, "--resume") == ResumeRequest()
    assert ask(monkeypatch, "--resume --budget 2") == ResumeRequest(budget=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--kernel k.rpm", "--inventory is missing"),
        ("-i hosts.yml", "--kernel is missing"),
        ("--resume --waves 5", "--waves cannot be changed"),
        ("--resume --limit a", "--limit cannot be changed"),
        ("--resume --soak 0", "--soak cannot be changed"),
        ("-i h --kernel k --waves 60,50", "sum of 100"),
        ("-i h --kernel k --power-command 'reboot it'", "names no host"),
        ("-i h --kernel k --power-command 'ipmi \"{host}'", "No closing quotation"),
        ("-i h --kernel k --trial-argument 'a b'", "one word"),
    ],
)
def test_what_cannot_be_is_said_at_once(line: str, message: str) -> None:
    assert message in refuse(line)


@pytest.mark.parametrize("text", ["soon", "-5", "5d", ""])
def test_a_length_of_time_has_a_form(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.configure(parser)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args([f"--soak={text}"])
