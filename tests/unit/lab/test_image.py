# SPDX-License-Identifier: GPL-2.0-only

import dataclasses
import os
from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.lab import image

SPEC = """\
Name: {name}
Version: 1
Release: 1
Summary: a test
License: GPL-2.0-only
AutoReqProv: no
%description
A test.
%install
mkdir -p {folders}
touch {files}
%files
{listed}
"""


def make_rpm(folder: Path, name: str, files: tuple[str, ...]) -> Path:
    """A package of empty files."""
    inside = [f"%{{buildroot}}{file}" for file in files]
    spec = folder / f"{name}.spec"
    spec.write_text(
        SPEC.format(
            name=name,
            folders=" ".join(str(Path(file).parent) for file in inside),
            files=" ".join(inside),
            listed="\n".join(files),
        )
    )
    run.run(["rpmbuild", "-bb", "--define", f"_topdir {folder}/rpm", spec])
    (package,) = folder.glob(f"rpm/RPMS/*/{name}-*.rpm")
    return package


def test_base_is_named_by_its_recipe() -> None:
    recipe = image.BaseRecipe()
    assert image.base_key(recipe) == image.base_key(image.BaseRecipe())
    longer = dataclasses.replace(recipe, packages=(*recipe.packages, "lsof"))
    assert image.base_key(longer) != image.base_key(recipe)


def test_a_base_asks_only_for_the_suites_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def record(words: list[object], **_: object) -> None:
        asked.append([str(word) for word in words])

    monkeypatch.setattr(image, "machine_mirror", lambda: "http://mirror")
    monkeypatch.setattr(image, "_mirror_of", lambda _suite, mirror: mirror)
    monkeypatch.setattr(run, "run", record)
    for name, recipe in (("lab", image.BaseRecipe()), ("servers", image.SERVERS)):
        (tmp_path / name).mkdir()
        image._build_base(recipe, tmp_path / name, None)
    lab, servers = (words for words in asked if "mmdebstrap" in words)
    suites = [word.split()[2] for word in lab if word.startswith("deb ")]
    assert suites == ["trixie", "bookworm", "bullseye"]
    assert any("grub-legacy" in word for word in lab)
    assert [word for word in servers if word.startswith("deb ")] == [
        "deb http://mirror trixie main"
    ]
    assert not any("grub-legacy" in word for word in servers)


def test_image_is_named_by_all_that_goes_into_it() -> None:
    keys = {
        image.image_key("base", "files", ("a", "b"), None, 3072),
        image.image_key("other", "files", ("a", "b"), None, 3072),
        image.image_key("base", "other", ("a", "b"), None, 3072),
        # The first kernel is the default entry.
        image.image_key("base", "files", ("b", "a"), None, 3072),
        image.image_key("base", "files", ("a", "b"), "grub", 3072),
        image.image_key("base", "files", ("a", "b"), None, 4096),
    }
    assert len(keys) == 6


def test_digest_of_a_tree_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = image.tree_digest(tmp_path)
    assert image.tree_digest(tmp_path) == first
    (tmp_path / "a").write_text("2")
    second = image.tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, image.tree_digest(tmp_path)}) == 3


def test_kernel_package_is_read(tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "kernel-test", ("/boot/vmlinuz-6.1.0-1.x86_64", "/boot/config-x"))
    kernel = image.read_kernel_package(package)
    assert (kernel.name, kernel.release) == ("kernel-test", "6.1.0-1.x86_64")
    assert kernel.sha256 == image.file_digest(package)


def test_a_package_without_a_kernel_is_refused(tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "kernel-test-devel", ("/usr/src/kernels/x/Makefile",))
    with pytest.raises(FsdeployError, match="is not a kernel package"):
        image.read_kernel_package(package)


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "kernel-test", ("/boot/vmlinuz-6.1.0-1.x86_64",))
    data = bytearray(package.read_bytes())
    data[-10] ^= 0xFF
    package.write_bytes(data)
    with pytest.raises(FsdeployError, match="is damaged"):
        image.read_kernel_package(package)
    package.write_text("not an RPM at all")
    with pytest.raises(FsdeployError, match="is not an RPM"):
        image.read_kernel_package(package)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="no such file"):
        image.read_kernel_package(tmp_path / "none.rpm")


def test_a_package_that_is_not_red_hats_grub_is_refused(tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "grub2", ("/usr/sbin/grub2-install", "/sbin/grub"))
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(FsdeployError, match="x86_64-redhat/stage1"):
        image.replace_grub(tree, package)


def test_disk_has_a_partition_that_old_grub_and_old_linux_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/hello").write_text("from the tree\n")
    disk = tmp_path / "disk.raw"
    image.make_disk(tree, disk, 64)
    assert disk.stat().st_size == 64 << 20
    parts = run.run(["sfdisk", "--dump", disk]).output
    assert "start=        2048" in parts
    assert "bootable" in parts
    facts = run.run(["debugfs", "-R", "stats", f"{disk}?offset={2048 * 512}"]).output
    features = next(line for line in facts.splitlines() if line.startswith("Filesystem features"))
    for modern in ("64bit", "metadata_csum", "extent", "flex_bg", "huge_file", "orphan_file"):
        assert modern not in features
    assert "has_journal" in features
    assert "journal_data_ordered" in facts
    assert any(line.split() == ["Inode", "size:", "128"] for line in facts.splitlines())
    text = run.run(["debugfs", "-R", "cat /boot/hello", f"{disk}?offset={2048 * 512}"]).output
    assert "from the tree" in text


def test_host_files_that_are_scripts_become_executable() -> None:
    assert image._mode(b"#!/bin/sh\n") == 0o755
    assert image._mode(b"default=0\n") == 0o644


def test_only_what_was_wanted_lately_is_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("a", "b", "base-1", "c", "base-2", ".building-x")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    image.prune(tmp_path, images=2, bases=1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a", "b", "base-1", ".building-x"}


@pytest.mark.parametrize(
    ("known", "expected"),
    [("http://mirror.example/debian/\nhttp://other.example/debian/\n", "mirror.example"), ("", "")],
)
def test_the_mirror_is_the_machines_own(
    known: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\nprintf '%s' '{known}'\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if expected:
        assert image.machine_mirror() == f"http://{expected}/debian"
    else:
        with pytest.raises(FsdeployError, match="knows no Debian mirror") as caught:
            image.machine_mirror()
        assert "apt-get update" in caught.value.hint
