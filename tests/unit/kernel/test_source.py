# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import identify, store
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets

from .conftest import DISTRIBUTION, SrpmMaker, pack, write_tree


def refused(path: Path, *, target: str = "") -> str:
    with pytest.raises(FsdeployError) as caught:
        sources.add(path, targets.load(target) if target else None)
    assert not list(sources.cache().glob("[0-9a-f.]*/*")), "something half stayed behind"
    return caught.value.message


# --- identification ---


def test_a_tree_is_known_by_its_makefile(tree: Path) -> None:
    found = identify.identify(tree)
    assert (found.kind, found.version, found.release, found.name) == (
        "tree", "6.1.100", "", "6.1.100",
    )  # fmt: skip


def test_the_hash_of_a_tree_is_of_its_content(tree: Path, tmp_path: Path) -> None:
    before = identify.identify(tree).digest
    other = shutil.copytree(tree, tmp_path / "elsewhere/linux")
    (other / ".git").mkdir()
    (other / ".git/HEAD").write_text("ref\n")
    assert identify.identify(other).digest == before
    (other / "kernel/early.c").write_text("int other;\n")
    assert identify.identify(other).digest != before


@pytest.mark.parametrize(("mode", "suffix"), [("w:xz", "xz"), ("w:bz2", "bz2"), ("w:gz", "gz")])
def test_a_tarball_is_known_by_the_makefile_in_it(
    tree: Path, tmp_path: Path, mode: str, suffix: str
) -> None:
    found = identify.identify(pack(tree, tmp_path / f"kernel.tar.{suffix}", mode))
    assert (found.kind, found.name) == ("tarball", "6.1.100")


def test_the_release_of_a_distribution_tree_is_in_its_name(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "linux-2.6.32-431.29.2.el6", "2.6.32", "430")
    assert identify.identify(tree).name == "2.6.32-431.29.2.el6"


def test_a_renamed_distribution_tree_is_known_by_its_build(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "kernel", "2.6.32", "430")
    assert identify.identify(tree).name == "2.6.32-431.el6"


def test_a_tree_that_contradicts_its_name_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "linux-2.6.32-431.el6", "2.6.32", "503")
    assert "its Makefile is that of build 504" in refused(tree)


def test_two_releases_with_the_same_content_are_two_sources(tmp_path: Path) -> None:
    names = ("linux-2.6.32-431.1.2.el6", "linux-2.6.32-431.3.1.el6")
    trees = [write_tree(tmp_path / name, "2.6.32", "430") for name in names]
    assert len({identify.identify(tree).digest for tree in trees}) == 2


def test_a_source_rpm_is_known_by_its_header(make_srpm: SrpmMaker) -> None:
    found = identify.identify(make_srpm("431.29.2.el6"))
    assert (found.kind, found.name) == ("srpm", "2.6.32-431.29.2.el6")


# --- refusals ---


def test_another_kernel_is_refused_by_name(tmp_path: Path, make_srpm: SrpmMaker) -> None:
    tree = write_tree(tmp_path / "linux-2.6.32-504.el6", "2.6.32", "503")
    says = "this is 2.6.32-504.el6; the el6 series is for 2.6.32-431.el6 or 2.6.32-431.*.el6"
    assert says in refused(tree, target="el6")
    assert says in refused(make_srpm("504.el6", "503"), target="el6")


def test_a_kernel_org_2_6_32_is_refused_by_name(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "linux-2.6.32", "2.6.32")
    assert "2.6.32 as kernel.org has it" in refused(tree, target="el6")


def test_a_source_for_no_target_names_those_there_are(tmp_path: Path) -> None:
    found = identify.identify(write_tree(tmp_path / "linux", "5.10.3"))
    with pytest.raises(FsdeployError) as caught:
        identify.require_any_fit(found)
    assert "this is 5.10.3; no series" in caught.value.message
    assert "lts61 for 6.1.*" in caught.value.hint


def test_a_truncated_source_rpm_is_damaged(make_srpm: SrpmMaker) -> None:
    path = make_srpm()
    path.write_bytes(path.read_bytes()[:-700])
    message = refused(path)
    assert "kernel-2.6.32-431.el6) is damaged or incomplete" in message


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_a_source_rpm_cut_in_its_header_is_damaged(make_srpm: SrpmMaker, keep: int) -> None:
    path = make_srpm()
    path.write_bytes(path.read_bytes()[:keep])
    assert "is damaged" in refused(path)


def test_a_source_rpm_with_a_flipped_bit_is_damaged(make_srpm: SrpmMaker) -> None:
    path = make_srpm()
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert "is damaged or incomplete" in refused(path)


def test_the_source_of_something_else_is_refused(make_srpm: SrpmMaker) -> None:
    assert "the source of bash-2.6.32-431.el6, not of a kernel" in refused(make_srpm(name="bash"))


def test_a_source_rpm_of_another_layout_is_refused(make_srpm: SrpmMaker) -> None:
    files = {name: text for name, text in DISTRIBUTION.items() if name != "config-generic"}
    assert "it has no config-generic" in refused(make_srpm(files=files))


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_tarball_is_damaged(tree: Path, tmp_path: Path, part: float) -> None:
    # Enough that cannot be packed, before and after the Makefile.
    (tree / "Documentation").write_bytes(bytes(range(256)) * 40)
    path = pack(tree, tmp_path / "kernel.tar.xz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "damaged or incomplete" in refused(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("hello\n"), "neither a source RPM nor a tarball"),
        (lambda path: path.mkdir(), "is not a kernel tree"),
        (lambda _: None, "there is no "),
    ],
)
def test_what_is_no_source_at_all_is_refused(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "thing")
    assert message in refused(tmp_path / "thing")


def test_a_tree_that_was_built_in_is_refused(tree: Path) -> None:
    (tree / ".config").write_text("CONFIG_A=y\n")
    assert "has been built in" in refused(tree)


# --- the cache ---


def test_a_source_rpm_is_unpacked_with_what_the_build_needs(make_srpm: SrpmMaker) -> None:
    path = make_srpm()
    added = sources.add(path)
    path.unlink()
    assert (added.tree / "kernel/early.c").is_file()
    assert added.distribution is not None
    kept = {file.name for file in added.distribution.iterdir()}
    assert kept == {*DISTRIBUTION, "kernel.spec"}
    assert added.kabi_list is not None
    assert added.epoch == int((added.tree / "Makefile").stat().st_mtime)
    assert sources.find(targets.load("el6")) == added
    assert sources.cached() == (added,)


def test_a_patch_that_the_distribution_puts_on_top_is_applied(make_srpm: SrpmMaker) -> None:
    patch = (
        "a\nb\nc\nd\n--- a/kernel/extra.c\n+++ b/kernel/extra.c\n"
        "@@ -1 +1,2 @@\n int extra;\n+int more;\n\n"
    )
    added = sources.add(make_srpm(files={**DISTRIBUTION, "linux-kernel-test.patch": patch}))
    assert "int more;" in (added.tree / "kernel/extra.c").read_text()


def test_adding_again_unpacks_nothing(tree: Path, tmp_path: Path) -> None:
    path = pack(tree, tmp_path / "kernel.tar.gz", "w:gz")
    first = sources.add(path)
    (first.directory / "mark").write_text("")
    assert sources.add(path) == first
    assert (first.directory / "mark").exists()


def test_the_oldest_release_is_taken_and_others_by_name(tmp_path: Path) -> None:
    for release in ("431.29.2.el6", "431.5.1.el6"):
        sources.add(write_tree(tmp_path / f"linux-2.6.32-{release}", "2.6.32", "430"))
    el6 = targets.load("el6")
    found = sources.find(el6)
    assert found is not None
    assert found.release == "431.5.1.el6"
    assert sources.resolve(el6, "2.6.32-431.29.2.el6").release == "431.29.2.el6"
    assert sources.resolve(el6, "431.29.2.el6").release == "431.29.2.el6"


def test_of_one_release_the_source_rpm_is_taken(
    make_srpm: SrpmMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sources.add(make_srpm())
    bare = sources.add(write_tree(tmp_path / f"linux-{whole.name}", "2.6.32", "430"))
    assert bare.name == whole.name
    el6 = targets.load("el6")
    for order in ((whole, bare), (bare, whole)):
        monkeypatch.setattr(sources, "cached", lambda order=order: order)
        assert sources.find(el6) == whole
        assert sources.resolve(el6, whole.release) == whole


def test_without_a_source_it_says_how_to_get_one() -> None:
    with pytest.raises(FsdeployError) as caught:
        sources.resolve(targets.load("el6"))
    assert "fsdeploy source add" in caught.value.hint


def test_a_source_package_that_is_not_installed_is_named() -> None:
    target = targets.load("lts61")
    target = targets.Target(**{**vars(target), "source_package": "linux-source-0.0"})
    with pytest.raises(FsdeployError) as caught:
        sources.resolve(target)
    assert "apt-get install linux-source-0.0" in caught.value.hint


def test_a_half_unpacked_folder_never_counts(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(sources, "_epoch", fail)
        with pytest.raises(KeyboardInterrupt):
            sources.add(tree)
    assert sources.cached() == ()
    assert not list(sources.cache().glob(".partial-*"))


def test_what_a_killed_process_left_is_removed(tree: Path) -> None:
    left = sources.cache() / ".partial-0123456789abcdef"
    left.mkdir(parents=True)
    sources.add(tree)
    assert not left.exists()


def test_a_full_disk_is_said_and_left_as_it_was(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "unpack", fail)
    assert refused(tree).startswith("the disk is full: unpacking linux-6.1.100 found no more space")


def test_too_little_space_is_said_before(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_space", lambda _: 100)
    assert refused(tree).startswith("not enough space for unpacking linux-6.1.100")


def test_a_cached_tree_that_was_written_to_is_not_built(tree: Path) -> None:
    added = sources.add(tree)
    sources.require_intact(added)
    (added.tree / "kernel/early.c").write_text("int other;\n")
    with pytest.raises(FsdeployError, match="has been changed since it was unpacked"):
        sources.require_intact(added)


def test_a_source_is_removed_by_name(tree: Path) -> None:
    added = sources.add(tree)
    assert sources.remove("6.1.100") == (added,)
    assert sources.cached() == ()
    with pytest.raises(FsdeployError, match=r"no source 6\.1\.100"):
        sources.remove("6.1.100")
