"""What a host makes of signatures, with the rpm of CentOS 6 and with today's."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy import run
from tests.keys import Keyring, changed, keyring, small_package
from tests.unit.playbooks.host import host_module, run_module

MODULE = host_module("fsdeploy_rpm")

# Each as it was seen: rpm 4.8.0, built from its source, and rpm 4.18.
ANSWERS = [
    (0, "rsa sha1 (md5) pgp md5 OK", ""),
    (0, "digests signatures OK", ""),
    (0, "sha1 md5 OK", "is not signed"),
    (0, "digests OK", "is not signed"),
    (0, "rsa sha1 md5 OK", "only the package's header is signed"),
    (1, "RSA sha1 ((MD5) PGP) md5 NOT OK (MISSING KEYS: (MD5) PGP#a49c535b)", "not signed with"),
    (1, "digests SIGNATURES NOT OK", "not signed with"),
    (1, "rsa sha1 (MD5) PGP MD5 NOT OK", "changed after it was signed"),
    (1, "DIGESTS SIGNATURES NOT OK", "changed after it was signed"),
    (1, "error: x.rpm: not an rpm package (or package manifest)", "damaged"),
    (1, "", "damaged"),
    (0, "", "damaged"),
    # Good words and a bad end, whatever may say so.
    (1, "digests signatures OK", "damaged"),
    (1, "rsa sha1 (md5) pgp md5 OK", "damaged"),
]


@pytest.mark.parametrize(("code", "answer", "reason"), ANSWERS)
def test_what_rpm_answers_is_understood(code: int, answer: str, reason: str) -> None:
    problem = MODULE.signature_problem(code, answer)
    assert bool(problem) is bool(reason)
    assert reason in problem


class FakeRpm:
    """Answers as rpm does, and remembers what it was asked."""

    def __init__(self, answer: str, *, known: bool = False) -> None:
        self.answer = answer
        self.known = known
        self.asked: list[tuple[str, ...]] = []

    def run(self, *words: str) -> tuple[int, str]:
        if words[0] == "--dbpath":
            words = ("own", *words[2:])
        self.asked.append(words[:2] if "-K" not in words else (words[0], "-K"))
        if words[:2] == ("own", "-K"):
            return 0, f"warning: something\n{words[2]}: {self.answer}"
        if words == ("own", "-q", "gpg-pubkey"):
            return 0, "gpg-pubkey-a49c535b-6b01b4d9"
        if words[0] == "-q":
            assert words[1] == "gpg-pubkey-a49c535b-6b01b4d9"
            return (0, words[1]) if self.known else (1, f"package {words[1]} is not installed")
        return 0, ""

    def must(self, what: str, *words: str) -> str:
        code, text = self.run(*words)
        assert code == 0, what
        return text


HOST_IMPORT = "--import"


def check(rpm: FakeRpm, package: Path, sha256: str) -> str:
    """Why the package is refused; empty when it is not."""
    try:
        MODULE.check(rpm, str(package), sha256, ("-i",), "the key")
    except MODULE.Refused as problem:
        return str(problem.sentence)
    return ""


@pytest.mark.parametrize("answer", ["rsa sha1 (md5) pgp md5 OK", "digests signatures OK"])
def test_the_host_gets_the_key_of_a_good_package(tmp_path: Path, answer: str) -> None:
    package = tmp_path / "pgp-signatures.rpm"
    package.write_bytes(b"rpm")
    sha256 = hashlib.sha256(b"rpm").hexdigest()
    rpm = FakeRpm(answer)
    assert check(rpm, package, sha256) == ""
    words = [asked[0] for asked in rpm.asked]
    assert words == ["own", "own", "-K", "own", "-q", HOST_IMPORT, "-i"]
    rpm = FakeRpm(answer, known=True)
    assert check(rpm, package, sha256) == ""
    assert HOST_IMPORT not in [asked[0] for asked in rpm.asked]


def test_the_host_gets_no_key_with_a_bad_package(tmp_path: Path) -> None:
    package = tmp_path / "pgp-signatures.rpm"
    package.write_bytes(b"rpm")
    for answer, sha256, reason in (
        ("sha1 md5 OK", hashlib.sha256(b"rpm").hexdigest(), "not signed: rpm says: sha1 md5 OK"),
        ("digests signatures OK", "0" * 64, "arrived damaged"),
    ):
        rpm = FakeRpm(answer)
        assert reason in check(rpm, package, sha256)
        assert not {HOST_IMPORT, "-i"} & {asked[0] for asked in rpm.asked}


@pytest.fixture(scope="module")
def keys() -> Iterator[Keyring]:
    with keyring() as made:
        yield made


def test_this_machines_rpm_refuses_what_is_not_signed(keys: Keyring, tmp_path: Path) -> None:
    fleet, other = keys.make("fleet"), keys.make("other")
    unsigned = small_package(tmp_path)
    packages = {}
    for key in (fleet, other):
        packages[key] = tmp_path / f"{key}.rpm"
        shutil.copyfile(unsigned, packages[key])
        words = ["rpmsign", "--define", "__gpg /usr/bin/gpg", "--define", f"_gpg_name {key}"]
        run.run([*words, "--addsign", "--rpmv3", packages[key]], env={"GNUPGHOME": str(keys.home)})
    public = keys.export(fleet, tmp_path / "key").read_text()
    before = run.run(["rpm", "-qa"]).output
    for package, text, reason in (
        (unsigned, public, "the package is not signed: rpm says: digests OK"),
        (packages[other], public, "not signed with the key that it must be"),
        (changed(packages[fleet], tmp_path / "c.rpm"), public, "changed after it was signed"),
        (packages[fleet], "no key", "cannot read the public key"),
    ):
        copy = tmp_path / "copy.rpm"
        shutil.copyfile(package, copy)
        answer = run_module(
            "kernel_package",
            state="present",
            release="0.0.0-not.installed",
            file=str(copy),
            sha256=hashlib.sha256(copy.read_bytes()).hexdigest(),
            key=text,
        )
        assert answer["failed"]
        assert reason in answer["msg"]
        assert not copy.exists()
    assert run.run(["rpm", "-qa"]).output == before
