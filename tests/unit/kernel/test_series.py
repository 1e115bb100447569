# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.kernel import check, series
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets

from .conftest import EARLY, HUNK, PATCH, TargetMaker


def patch_text(subject: str = "early: change the third", file: str = "kernel/early.c",
               hunk: str = HUNK) -> str:  # fmt: skip
    return PATCH.format(subject=subject, file=file, hunk=hunk)


def folder_with(tmp_path: Path, lines: str, **patches: str) -> Path:
    folder = tmp_path / "series-folder"
    folder.mkdir()
    (folder / "series").write_text(lines)
    for name, text in patches.items():
        (folder / f"{name.replace('_', '-').lstrip('n')}.patch").write_text(text)
    return folder


def one(tmp_path: Path, text: str, name: str = "n0001_a") -> series.Series:
    file = f"{name.replace('_', '-').lstrip('n')}.patch"
    return series.read(folder_with(tmp_path, f"# features\n{file}\n", **{name: text}))


# --- reading ---


def test_no_series_is_an_empty_series(tmp_path: Path) -> None:
    assert series.read(tmp_path / "nothing").patches == ()


def test_a_heading_begins_a_section_and_stock_has_the_toolchain_only(tmp_path: Path) -> None:
    lines = "# toolchain: to build at all\n0001-a.patch\n\n# features\n0002-b.patch # a remark\n"
    found = series.read(folder_with(tmp_path, lines, n0001_a=patch_text(), n0002_b=patch_text()))
    assert [patch.section for patch in found.patches] == ["toolchain", "features"]
    assert [patch.name for patch in found.part(stock=True)] == ["0001-a.patch"]
    assert len(found.part(stock=False)) == 2


def test_headers_may_stand_in_the_mail_or_at_the_top_of_the_message(tmp_path: Path) -> None:
    text = patch_text().replace("\nPatch-mainline", "\n\nPatch-mainline")
    patch = one(tmp_path, text).patches[0]
    assert patch.headers["Patch-mainline"] == "Never, an example"
    assert patch.subject == "early: change the third"
    assert patch.epoch == 1772445600
    assert patch.diff.startswith("diff --git a/kernel/early.c")


def test_a_name_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match=r"names 0009-gone.patch, which is not there"):
        series.read(folder_with(tmp_path, "0009-gone.patch\n"))


# --- lint ---


def test_a_good_patch_has_no_complaint(tmp_path: Path) -> None:
    assert series.lint(one(tmp_path, patch_text())) == []


@pytest.mark.parametrize(
    ("change", "to", "complaint"),
    [
        ("From: A Developer <developer@localhost>\n", "", "no From: header"),
        ("Date: Mon, 2 Mar 2026 10:00:00 +0000", "Date: yesterday", "is not a date"),
        ("Patch-mainline: Never, an example\n", "", "no Patch-mainline: header"),
        ("Never, an example", "perhaps", "is a version, or Never, and the reason"),
        ("change the third", "change " + "x" * 70, "subject of 84 characters"),
        ("change the third\n", "change the third.\n", "subject ends with a full stop"),
        ("Why it is there. Takes no lock. Tested: it compiles.\n", "", "the message says nothing"),
        ("+int third = 33;", "+int third = 33; ", "white space at the end of an added line"),
        ("--- a/kernel", "index 0123abc..456789a 100644\n--- a/kernel", "index lines"),
        ("+++ b/kernel", "+++ new/kernel", "paths begin with a/ and b/"),
    ],
)  # fmt: skip
def test_a_wrong_patch_is_named_with_what_is_wrong(
    tmp_path: Path, change: str, to: str, complaint: str
) -> None:
    text = patch_text()
    assert change in text
    found = series.lint(one(tmp_path, text.replace(change, to)))
    assert len(found) == 1
    assert found[0].startswith("0001-a.patch: ")
    assert complaint in found[0]


def test_names_numbers_and_files_agree(tmp_path: Path) -> None:
    lines = "0002-b.patch\n0001-a.patch\n# toolchain\nUnfit.patch\n"
    folder = folder_with(
        tmp_path, lines, n0001_a=patch_text(), n0002_b=patch_text(), Unfit=patch_text()
    )
    (folder / "0004-stray.patch").write_text(patch_text())
    assert series.lint(series.read(folder)) == [
        "0004-stray.patch: not in the series",
        "series: toolchain patches come first, stock kernels have only them",
        "0002-b.patch: number 0002 in place 0001 of the series",
        "0001-a.patch: number 0001 in place 0002 of the series",
        "Unfit.patch: the name is not NNNN-subsystem-short-subject.patch",
    ]


@pytest.mark.parametrize("name", targets.names())
def test_the_shipped_series_is_clean(name: str) -> None:
    assert series.lint(series.read(targets.load(name).patches)) == []


# --- applying ---


def test_an_offset_is_fine(tmp_path: Path, tree: Path) -> None:
    (tree / "kernel/early.c").write_text("int zero = 0;\n" * 3 + EARLY)
    series.apply_one(one(tmp_path, patch_text()).patches[0], tree)
    assert "int third = 33;" in (tree / "kernel/early.c").read_text()
    assert not list(tree.rglob("*.orig"))


def test_fuzz_is_refused_with_patch_file_and_hunk(tmp_path: Path, tree: Path) -> None:
    changed = EARLY.replace("fifth", "last")
    (tree / "kernel/early.c").write_text(changed)
    with pytest.raises(FsdeployError) as caught:
        series.apply_one(one(tmp_path, patch_text()).patches[0], tree, where="6.1.100")
    assert caught.value.message == (
        "0001-a.patch does not apply to 6.1.100: kernel/early.c: hunk 1 (line 1) does not match"
    )
    assert (tree / "kernel/early.c").read_text() == changed
    assert not list(tree.rglob("*.rej"))


def test_a_patch_for_a_file_that_is_not_there_names_it(tmp_path: Path, tree: Path) -> None:
    (tree / "kernel/early.c").unlink()
    with pytest.raises(FsdeployError, match=r"0001-a.patch.*kernel/early.c: hunk 1: there is no"):
        series.apply_one(one(tmp_path, patch_text()).patches[0], tree)


def test_a_patch_that_is_in_already_is_an_error(tmp_path: Path, tree: Path) -> None:
    patch = one(tmp_path, patch_text()).patches[0]
    series.apply_one(patch, tree)
    with pytest.raises(FsdeployError, match=r"kernel/early.c: hunk 1 \(line 1\) does not match"):
        series.apply_one(patch, tree)


def test_applying_does_not_write_through_hard_links(tmp_path: Path, tree: Path) -> None:
    before = sources.fingerprint(tree)
    clone = tmp_path / "clone"
    series.clone_tree(tree, clone)
    series.apply_one(one(tmp_path, patch_text()).patches[0], clone)
    assert sources.fingerprint(tree) == before
    assert (tree / "kernel/early.c").read_text() == EARLY


def test_each_prefix_is_compiled(make_target: TargetMaker, tree: Path) -> None:
    broken = HUNK.replace("int third = 33;", "int third = ;")
    mended = HUNK.replace("-int third = 3;", "-int third = ;")
    target = make_target(
        patches={
            "0001-break.patch": patch_text("early: break it", hunk=broken),
            "0002-mend.patch": patch_text("early: mend it", hunk=mended),
        }
    )
    source = sources.add(tree)
    check.check_series(target, source, series.read(target.patches))
    with pytest.raises(CheckFailed) as caught:
        check.check_series(target, source, series.read(target.patches), "small", 1)
    assert "does not compile as far as 0001-break.patch" in caught.value.message
    assert "kernel/early.c:3:13: error" in caught.value.message
    sources.require_intact(source)


# --- git ---


def test_a_git_tree_gives_back_the_series_it_was_made_of(tmp_path: Path, tree: Path) -> None:
    second = HUNK.replace("-int third = 3;", "-int third = 33;").replace(
        "+int third = 33;", "+int third = 333;"
    )
    lines = "# what this is\n# toolchain: to build\n0001-early-change-the-third.patch\n"
    lines += "\n# features\n0002-early-again.patch\n"
    (tree / "latin").write_bytes(b"caf\xe9\n")
    latin = "--- a/latin\n+++ b/latin\n@@ -1 +1,2 @@\n caf\udce9\n+th\udce9\n"
    folder = folder_with(
        tmp_path,
        lines,
        n0001_early_change_the_third=patch_text(),
        n0002_early_again=patch_text("early: again", hunk=second),
    )
    with (folder / "0002-early-again.patch").open("ab") as file:
        file.write(f"diff --git a/latin b/latin\n{latin}".encode("utf-8", "surrogateescape"))
    before = series.read(folder)
    work = tmp_path / "work"
    series.into_git(before.patches, tree, work)

    exported = series.export(work, "base..HEAD", before)
    assert exported == series.export(work, "base..HEAD", before)
    series.write(folder, before, exported)
    after = series.read(folder)
    assert after.lines == before.lines
    assert series.lint(after) == []
    assert [patch.headers for patch in after.patches] == [patch.headers for patch in before.patches]
    assert [patch.diff for patch in after.patches] == [patch.diff for patch in before.patches]


def test_exporting_takes_away_what_is_gone_and_numbers_anew(tmp_path: Path, tree: Path) -> None:
    before = one(tmp_path, patch_text())
    work = tmp_path / "work"
    series.into_git((), tree, work)
    (work / "kernel/extra.c").write_text("int extra;\nint more;\n")
    subprocess.run(
        [
            "git",
            "-C",
            work,
            "commit",
            "-qam",
            "extra: one more\n\nPatch-mainline: Never, so\n\nWhy.",
        ],
        check=True,
    )
    exported = series.export(work, "base..HEAD", before)
    series.write(before.folder, before, exported)
    assert sorted(path.name for path in before.folder.iterdir()) == [
        "0001-extra-one-more.patch", "series",
    ]  # fmt: skip
    assert series.lint(series.read(before.folder)) == []


def test_a_folder_with_something_in_it_is_not_overwritten(tree: Path) -> None:
    with pytest.raises(FsdeployError, match="is not empty"):
        series.into_git((), tree, tree)
