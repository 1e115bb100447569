# SPDX-License-Identifier: GPL-2.0-only
"""The commands as a user meets them: what they print and the code they end with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdeploy import cli, paths

from .conftest import HUNK, PATCH, TargetMaker

PATCHES = {"0001-early.patch": PATCH.format(subject="early: so", file="kernel/early.c", hunk=HUNK)}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, make_target: TargetMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    make_target(patches=PATCHES)
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)


def test_a_source_is_added_listed_and_removed(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["source", "add", str(tree)]) == 0
    assert capsys.readouterr().out == "6.1.100 (tree) for fake\n"
    assert cli.main(["source", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["targets"], row["origin"]) == ("6.1.100", ["fake"], "linux-6.1.100")
    assert cli.main(["source", "identify", "--json", str(tree)]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == row["sha256"]
    assert cli.main(["source", "remove", "6.1.100"]) == 0
    assert cli.main(["source", "list"]) == 0
    assert "no source in the cache" in capsys.readouterr().out


def test_a_source_for_no_target_is_not_added(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    makefile = tree / "Makefile"
    makefile.write_text(makefile.read_text().replace("PATCHLEVEL = 1", "PATCHLEVEL = 2"))
    assert cli.main(["source", "add", str(tree)]) == 2
    assert "this is 6.2.100; no series of ours is for it" in capsys.readouterr().err


def test_a_kernel_is_built_and_its_packages_copied(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output/here"
    words = ["build-kernel", "--target", "fake", "--source", str(tree), "--fragment", "small"]
    assert cli.main([*words, "--json", "--output", str(output)]) == 0
    built = json.loads(capsys.readouterr().out)
    release = built["manifest"]["release"]
    assert sorted(path.name for path in output.iterdir()) == [
        f"kernel-fastsocket-{release}.manifest.json",
        f"kernel-fastsocket-{release}.rpm",
        f"kernel-fastsocket-devel-{release}.rpm",
    ]
    assert built["kernel_rpm"] == str(output / f"kernel-fastsocket-{release}.rpm")

    # The tree can go away: its release names it now.
    assert cli.main([*words[:3], "--source", "6.1.100", *words[5:]]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{release}\n")
    assert "is built already" in said.err


def test_wrong_words_end_with_code_2(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build-kernel", "--target", "nothing"]) == 2
    assert "there is no target nothing" in capsys.readouterr().err
    words = ["build-kernel", "--target", "fake", "--source", str(tree)]
    assert cli.main([*words, "--fragment", "large"]) == 2
    assert "fake has no fragment large" in capsys.readouterr().err


def test_a_series_is_linted_checked_applied_and_exported(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["series", "lint"]) == 0
    assert "fake: 1 patches, nothing to complain about" in capsys.readouterr().out
    source = ["--target", "fake", "--source", str(tree)]
    assert cli.main(["series", "check", *source]) == 0
    assert "each of 1 patches applies on 6.1.100" in capsys.readouterr().out
    assert cli.main(["series", "check", *source, "--compile", "small"]) == 0
    assert "applies and compiles (small)" in capsys.readouterr().out
    work, output = tmp_path / "work", tmp_path / "exported"
    assert cli.main(["series", "apply", *source, "--into", str(work)]) == 0
    assert (
        cli.main(["series", "export", str(work), "--target", "fake", "--output", str(output)]) == 0
    )
    assert (output / "0001-early-so.patch").read_text().startswith("From: A Developer")


def test_a_series_that_is_wrong_ends_with_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "patches/fake/0002-stray.patch").write_text("")
    assert cli.main(["series", "lint", "--target", "fake"]) == 1
    said = capsys.readouterr()
    assert said.out == "fake: 0002-stray.patch: not in the series\n"
    assert "1 problems in the series" in said.err
