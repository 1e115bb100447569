# SPDX-License-Identifier: GPL-2.0-only
"""fsocket-run, installed by the sources' own Makefile as a user without fsdeploy would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fsdeploy import paths

ENV = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    subprocess.run(
        ["make", "install", f"PREFIX={folder}", f"O={tmp_path_factory.mktemp('out')}"],
        cwd=paths.data_root() / "libfsocket",
        check=True,
        capture_output=True,
    )
    return folder


def call(prefix: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [prefix / "bin/fsocket-run", *words],
        env={**ENV, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_install_puts_all_in_its_place(prefix: Path) -> None:
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    assert files == {
        "bin/fsocket-run",
        "lib64/libfsocket.so",
        "share/man/man1/fsocket-run.1",
        "share/man/man7/libfsocket.7",
    }


def test_the_program_gets_the_library_and_its_words(prefix: Path) -> None:
    script = 'grep -q "$2" /proc/$$/maps && printf "%s|" "$LD_PRELOAD" "$@"'
    library = str(prefix / "lib64/libfsocket.so")
    ended = call(prefix, "sh", "-c", script, "sh", "a b", library, "*")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{library}|a b|{library}|*|"


def test_what_was_preloaded_stays(prefix: Path) -> None:
    library = str(prefix / "lib64/libfsocket.so")
    ended = call(prefix, "sh", "-c", 'echo "$LD_PRELOAD"', LD_PRELOAD="libdl.so.2")
    assert ended.stdout == f"{library}:libdl.so.2\n"


def test_two_dashes_end_the_options(prefix: Path) -> None:
    assert call(prefix, "--", "echo", "-x").stdout == "-x\n"


def test_it_ends_as_the_program_does(prefix: Path) -> None:
    assert call(prefix, "sh", "-c", "exit 7").returncode == 7
    assert call(prefix, "/no/such/program").returncode == 127
    assert call(prefix, "/etc/passwd").returncode == 126


@pytest.mark.parametrize("words", [[], ["--"], ["--wrong", "sh"]])
def test_wrong_words_are_said(prefix: Path, words: list[str]) -> None:
    ended = call(prefix, *words)
    assert (ended.returncode, ended.stdout) == (125, "")
    assert ended.stderr.startswith("fsocket-run: ")
    assert "usage: fsocket-run CMD" in ended.stderr


def test_help(prefix: Path) -> None:
    ended = call(prefix, "--help")
    assert (ended.returncode, ended.stdout) == (0, "usage: fsocket-run CMD [ARGUMENT...]\n")


def test_a_missing_library_is_said(prefix: Path, tmp_path: Path) -> None:
    library = prefix / "lib64/libfsocket.so"
    aside = library.rename(tmp_path / "aside.so")
    try:
        ended = call(prefix, "echo", "here")
    finally:
        aside.rename(library)
    assert (ended.returncode, ended.stdout) == (125, "")
    assert ended.stderr == f"fsocket-run: cannot read {library}\n"
