from __future__ import annotations

import argparse
import errno
import os
import signal
import types

import pytest

from fsdeploy import cli
from fsdeploy.errors import CheckFailed, ExitCode, FsdeployError, Unreachable


def raising(problem: BaseException) -> types.SimpleNamespace:
    def main(_args: argparse.Namespace) -> int:
        raise problem

    return types.SimpleNamespace(configure=lambda _parser: None, main=main)


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (FsdeployError("bad"), ExitCode.BAD_INPUT),
        (CheckFailed("no"), ExitCode.CHECK_FAILED),
        (Unreachable("gone"), ExitCode.UNREACHABLE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/x"), ExitCode.BAD_INPUT),
    ],
)
def test_every_end_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: BaseException,
    code: ExitCode,
) -> None:
    monkeypatch.setattr(cli, "_load", lambda _name: raising(problem))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    try:
        assert cli.main(["doctor"]) == code
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
    assert capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, _, _ in cli.COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


def test_a_usage_error_ends_with_code_2() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["no-such-command"])
    assert ended.value.code == ExitCode.BAD_INPUT
