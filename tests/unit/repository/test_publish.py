"""Repositories as they are written, read back, and never seen half."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store
from fsdeploy.kernel.identify import file_digest
from fsdeploy.repository import publish as module
from fsdeploy.repository.publish import (
    Given,
    Published,
    PublishReport,
    PublishRequest,
    plan,
    publish,
    read_metadata,
)
from fsdeploy.repository.signature import content_sha256, signature_problem
from tests.keys import changed, keyring, manifest_of, small_package
from tests.unit.repository.conftest import Made


@pytest.fixture
def request_of(made: Made, tmp_path: Path) -> Callable[..., PublishRequest]:
    def ask(*packages: Path, **more: Any) -> PublishRequest:
        chosen = packages or (made.small,)
        request = PublishRequest(chosen, made.fleet, tmp_path / "repository", made.keys.home)
        return replace(request, **more)

    return ask


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its time: what is the same was not written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def seen(folder: Path) -> set[str]:
    """The packages that a reader of the repository finds whole."""
    if not (folder / "repodata").exists():
        return set()
    found = read_metadata(folder / "repodata")
    for item in found:
        assert file_digest(folder / "Packages" / item.file) == item.sha256
    return {item.file for item in found}


def test_what_is_published_is_signed_and_listed(
    made: Made, request_of: Callable[..., PublishRequest]
) -> None:
    report = publish(request_of(made.small, made.newer))
    folder = report.directory
    assert report.added == ("small-1-1.noarch.rpm", "small-2-1.noarch.rpm")
    assert seen(folder) == set(report.added)
    for source, file in zip((made.small, made.newer), report.added, strict=True):
        path = report.path_of(file)
        assert signature_problem(path, report.public_key) == ""
        assert content_sha256(path) == content_sha256(source)
        # The signature of header and payload: what rpm 4.8 must have. RSA with SHA-256.
        form = "%{SIGPGP:pgpsig}|%{RSAHEADER:pgpsig}"
        told = run.run(["rpm", "-qp", "--nosignature", "--qf", form, path]).output.split("|")
        for signature in told:
            assert signature.startswith("RSA/SHA256,")
            assert signature.endswith(f"Key ID {made.fleet[-16:].lower()}")
    assert signature_problem(made.small, report.public_key) == "it is not signed"

    # yum of CentOS 6 reads gzip and XML; nothing else is there.
    names = [path.name for path in (folder / "repodata").iterdir()]
    kinds = sorted(name.split("-", 1)[-1] for name in names)
    assert kinds == [
        "filelists.xml.gz", "other.xml.gz", "primary.xml.gz", "repomd.xml", "repomd.xml.asc"
    ]  # fmt: skip
    (primary,) = (folder / "repodata").glob("*-primary.xml.gz")
    assert gzip.decompress(primary.read_bytes()).startswith(b"<?xml")
    root = ET.fromstring((folder / "repodata" / "repomd.xml").read_bytes())
    space = "{http://linux.duke.edu/metadata/repo}"
    kinds = [str(entry.get("type")) for entry in root.iter(f"{space}checksum")]
    assert set(kinds) == {"sha256"}

    signed = (folder / "repodata" / "repomd.xml.asc", folder / "repodata" / "repomd.xml")
    assert "BEGIN PGP SIGNATURE" in signed[0].read_text()
    made.keys.gpg("--verify", *signed)
    text = (folder / "fsdeploy.repo").read_text()
    for line in ("gpgcheck=1", "repo_gpgcheck=1", "enabled=0"):
        assert line in text.splitlines()
    assert made.fleet in text
    assert not list((folder / ".fsdeploy").glob("new*"))


def test_the_same_again_changes_nothing(
    made: Made, request_of: Callable[..., PublishRequest]
) -> None:
    first = publish(request_of())
    before = tree(first.directory)
    link = (first.directory / "repodata").readlink()
    for packages in ((made.small,), (first.path_of(first.added[0]),)):
        again = publish(request_of(*packages))
        assert (again.added, again.kept, again.changed) == ((), first.added, False)
        assert tree(first.directory) == before
        assert (first.directory / "repodata").readlink() == link


def test_another_release_keeps_the_one_before(
    made: Made, request_of: Callable[..., PublishRequest]
) -> None:
    first = publish(request_of())
    folder = first.directory
    before = tree(folder / "Packages")
    old = (folder / "repodata" / "repomd.xml").read_bytes()
    files = module._data_files(folder / "repodata")
    second = publish(request_of(made.newer))
    assert second.added == ("small-2-1.noarch.rpm",)
    assert seen(folder) == {*first.added, *second.added}
    assert before.items() <= tree(folder / "Packages").items()
    assert (folder / "repodata" / "repomd.xml").read_bytes() != old
    # A reader that has the old repomd.xml finds what it names.
    assert all((folder / "repodata" / name).is_file() for name in files)
    # It stays with one.
    publish(request_of(small_package(folder.parent / "third", version="3")))
    assert not any((folder / "repodata" / name).exists() for name in files)
    assert len(list((folder / "metadata").iterdir())) == 1


def test_a_dry_run_writes_nothing(request_of: Callable[..., PublishRequest]) -> None:
    report = publish(request_of(dry_run=True))
    assert report.added == ("small-1-1.noarch.rpm",)
    assert not report.directory.exists()
    folder = publish(request_of()).directory
    before = tree(folder)
    report = publish(request_of(dry_run=True))
    assert (report.added, report.kept, report.changed) == ((), ("small-1-1.noarch.rpm",), False)
    assert tree(folder) == before


class Killed(BaseException):
    """What ends a process that is killed: nobody catches it."""


def test_killed_anywhere_readers_see_old_or_new(
    made: Made,
    request_of: Callable[..., PublishRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = publish(request_of()).directory
    signed = publish(request_of(made.newer, output=tmp_path / "signed"))
    newer = signed.path_of(signed.added[0])
    old, new = {"small-1-1.noarch.rpm"}, {"small-1-1.noarch.rpm", "small-2-1.noarch.rpm"}
    found = set()

    for place in range(100):
        folder = tmp_path / str(place)
        shutil.copytree(first, folder, symlinks=True)
        steps = iter(range(1000))

        def stepping(
            real: Callable[..., Any],
            place: int = place,
            folder: Path = folder,
            steps: Iterator[int] = steps,
        ) -> Callable[..., Any]:
            def step(*arguments: Any, **more: Any) -> Any:
                assert seen(folder) in (old, new)
                if next(steps) >= place:
                    raise Killed
                return real(*arguments, **more)

            return step

        with monkeypatch.context() as patch:
            # A killed process tidies nothing up: after the first every step kills.
            patch.setattr(store, "remove_tree", stepping(store.remove_tree))
            patch.setattr(shutil, "copyfile", stepping(shutil.copyfile))
            for name in ("rename", "replace", "symlink", "link"):
                patch.setattr(os, name, stepping(getattr(os, name)))
            # The disk's time is not wanted here.
            patch.setattr(os, "fsync", stepping(lambda _descriptor: None))
            try:
                publish(request_of(newer, output=folder))
                break
            except Killed:
                found.add(frozenset(seen(folder)))
        if place % 4 == 3:
            publish(request_of(newer, output=folder))
            assert seen(folder) == new
            assert sorted(path.name for path in (folder / ".fsdeploy").iterdir()) == ["lock"]
    assert found == {frozenset(old), frozenset(new)}
    assert place > 15


def test_a_full_disk_is_told_and_nothing_changes(
    made: Made, request_of: Callable[..., PublishRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(request_of()).directory
    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(store, "free_space", lambda _: 1000)
        with pytest.raises(FsdeployError, match="not enough space") as problem:
            publish(request_of(made.newer))
    assert "--output" in problem.value.hint

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(FsdeployError, match="the disk is full") as problem:
        publish(request_of(made.newer))
    assert "--output" in problem.value.hint
    assert tree(folder) == before
    assert seen(folder) == {"small-1-1.noarch.rpm"}


def refused(request: PublishRequest, message: str) -> FsdeployError:
    with pytest.raises(FsdeployError, match=message) as problem:
        publish(request)
    return problem.value


def test_what_cannot_be_published(
    made: Made, request_of: Callable[..., PublishRequest], tmp_path: Path
) -> None:
    refused(request_of(tmp_path / "none.rpm"), "there is no package")
    refused(request_of(changed(made.small, tmp_path / "x.rpm")), "not a whole RPM")
    cut = tmp_path / "cut.rpm"
    cut.write_bytes(made.small.read_bytes()[:-200])
    refused(request_of(made.newer, cut), "cut.rpm is not a whole RPM")
    text = tmp_path / "text.rpm"
    text.write_text("small")
    refused(request_of(text), "not a whole RPM")
    swapped = Path(shutil.copy(made.small, tmp_path / made.small.name))
    manifest_of(swapped)
    shutil.copy(made.newer, swapped)
    refused(request_of(swapped), "is not what was built")
    modern = small_package(tmp_path / "modern", "modern", payload="w3.zstdio", digest="10")
    problem = refused(request_of(modern), "zstd, file digests of algorithm 10")
    assert "rpmlib(PayloadIsZstd)" in problem.message
    assert not request_of().output.exists()


def test_a_folder_that_is_not_ours_is_left_alone(
    made: Made, request_of: Callable[..., PublishRequest]
) -> None:
    folder = request_of().output
    folder.mkdir()
    (folder / "photo.jpg").write_text("mine")
    refused(request_of(), "has other things in it, photo.jpg")
    assert [path.name for path in folder.iterdir()] == ["photo.jpg"]
    (folder / "photo.jpg").unlink()
    publish(request_of())
    before = tree(folder)
    refused(request_of(key=made.other), "is signed with the key")
    assert tree(folder) == before
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    before = tree(copy)
    refused(request_of(output=copy), "is a copy of a repository")
    assert tree(copy) == before


def test_a_package_is_never_replaced_by_another(
    made: Made, request_of: Callable[..., PublishRequest], tmp_path: Path
) -> None:
    published = publish(request_of())
    before = tree(published.directory)
    # The same name and version, another content.
    other = small_package(tmp_path / "other", payload="w1.gzdio")
    assert other.name == made.small.name
    refused(request_of(other), "another small-1-1.noarch.rpm is published")
    refused(request_of(made.newer, made.small, other), "two packages of one name")
    assert tree(published.directory) == before


def test_what_was_damaged_since_is_noticed_and_mended(
    made: Made, request_of: Callable[..., PublishRequest]
) -> None:
    published = publish(request_of())
    path = published.path_of(published.added[0])
    path.write_bytes(path.read_bytes()[:-1])
    problem = refused(request_of(made.newer), "not what was published")
    assert path.name in problem.hint
    assert publish(request_of(made.small)).added == published.added
    path.unlink()
    refused(request_of(made.newer), "or is gone")
    assert publish(request_of(made.small, made.newer)).added == (path.name, "small-2-1.noarch.rpm")
    assert seen(published.directory) == {path.name, "small-2-1.noarch.rpm"}

    listed = published.directory / "repodata" / "repomd.xml"
    listed.write_bytes(listed.read_bytes().replace(b"sha256", b"sha512", 1))
    problem = refused(request_of(), "metadata in .* is damaged")
    # As the hint has it.
    (published.directory / "repodata").unlink()
    everything = sorted((published.directory / "Packages").iterdir())
    before = tree(published.directory / "Packages")
    publish(request_of(*everything))
    assert seen(published.directory) == {path.name for path in everything}
    now = tree(published.directory / "Packages")
    assert {name: data for name, (_, data) in now.items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_a_package_signed_with_another_key_is_signed_anew(
    made: Made, request_of: Callable[..., PublishRequest], tmp_path: Path
) -> None:
    other = publish(request_of(key=made.other))
    theirs = other.path_of(other.added[0])
    report = publish(request_of(theirs, output=tmp_path / "ours"))
    assert signature_problem(report.path_of(theirs.name), report.public_key) == ""
    assert signature_problem(theirs, report.public_key) != ""


def test_the_primary_part_of_a_key_signs_and_nothing_is_mixed_into_it(
    request_of: Callable[..., PublishRequest],
) -> None:
    with keyring() as keys:
        name = keys.make("parts")
        keys.gpg("--passphrase", "", "--quick-add-key", name, "rsa2048", "sign", "never")
        # gpg warns of such a folder; the warning is no part of the key that hosts get.
        keys.home.chmod(0o755)
        report = publish(request_of(key=name, gnupg_home=keys.home))
        assert report.public_key.read_text().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
        form = ["--qf", "%{SIGPGP:pgpsig} %{RSAHEADER:pgpsig}"]
        path = report.path_of(report.added[0])
        told = run.run(["rpm", "-qp", "--nosignature", *form, path]).output
        assert told.count(f"Key ID {name[-16:].lower()}") == 2
        listed = report.directory / "repodata" / "repomd.xml"
        words = ["gpg", "--status-fd", "1", "--verify", f"{listed}.asc", str(listed)]
        said = run.run(words, env={"GNUPGHOME": str(keys.home)}).output
        assert f"VALIDSIG {name} " in said


def test_a_signed_header_alone_is_not_enough(
    made: Made, request_of: Callable[..., PublishRequest], tmp_path: Path
) -> None:
    half = tmp_path / made.small.name
    shutil.copyfile(made.small, half)
    words = ["rpmsign", "--define", "__gpg /usr/bin/gpg", "--define", f"_gpg_name {made.fleet}!"]
    run.run([*words, "--addsign", half], env={"GNUPGHOME": str(made.keys.home)})
    key = made.keys.export(made.fleet, tmp_path / "key")
    assert "only its header is signed" in signature_problem(half, key)
    report = publish(request_of(half))
    assert signature_problem(report.path_of(half.name), key) == ""


def test_missing_tools_are_named_with_their_packages(
    request_of: Callable[..., PublishRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find", lambda _tool: None)
    problem = refused(request_of(), "missing tools: createrepo_c, gpg, gpg-agent, rpm, rpmsign")
    assert "apt-get install createrepo-c gpg gpg-agent rpm" in problem.hint
    assert "yum install createrepo_c gnupg2 rpm rpm-sign" in problem.hint


def test_the_plan_is_pure() -> None:
    one, two = Given(Path("a/p.rpm"), "p.rpm", "1"), Given(Path("b/q.rpm"), "q.rpm", "2")
    there = {"p.rpm": Published("p.rpm", "s", "1")}
    assert plan([one, two, two], there) == {"q.rpm": two}
    assert plan([], {}) == {}


def test_the_report_is_for_scripts(tmp_path: Path) -> None:
    report = PublishReport(tmp_path, "F" * 40, ("a.rpm",), ("b.rpm",), changed=True)
    told = report.as_dict()
    assert told["added"] == [str(tmp_path / "Packages" / "a.rpm")]
    assert told["kept"] == [str(tmp_path / "Packages" / "b.rpm")]
    assert told["public_key"] == str(tmp_path / "RPM-GPG-KEY-fsdeploy")
