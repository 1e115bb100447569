"""Which keys can be used with rpm 4.8, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.repository.key import (
    Key,
    find_signing_key,
    parse_listing,
    read_public_key,
    unusable,
)
from tests.keys import keyring
from tests.unit.repository.conftest import Made

NOW = 1_800_000_000.0
GOOD = Key("A" * 40, "1", 3072, "u", None, "scSC", secret=True, here=True)

# As gpg 2.2 lists a key with a subkey, and one whose secret part is on another machine.
LISTING = """\
sec:u:4096:1:075DC7DC60FD2D75:1795274030:1895274030::u:::scESC:::+:::23::0:
fpr:::::::::CBFF992F49D565B52FFEC0C3075DC7DC60FD2D75:
grp:::::::::0A401CC2CD0A7CBACB43277CE858C86CA1D126E3:
uid:u::::1795274030::AA6D4D12F76D197E2923B87551D1AE4C6176208A::sub test::::::::::0:
ssb:u:2048:1:76833ADF87FC8761:1795274035::::::e:::+:::23:
fpr:::::::::E2DA2F19CD18D0D0DEFC6AEF76833ADF87FC8761:
sec:-:255:22:1826A76681BE13B7:1795274030:::u:::scSC:::#:::23::0:
fpr:::::::::9BA789AC4539D5442694BAA61826A76681BE13B7:
"""


def test_the_listing_of_gpg_is_understood() -> None:
    first, second = parse_listing(LISTING)
    assert first == Key(
        "CBFF992F49D565B52FFEC0C3075DC7DC60FD2D75",
        "1",
        4096,
        "u",
        1895274030.0,
        "scESC",
        secret=True,
        here=True,
    )
    assert (second.fingerprint[-8:], second.algorithm, second.here) == ("81BE13B7", "22", False)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (replace(GOOD, algorithm="22", bits=255), r"EdDSA \(ed25519\), and rpm 4.8 checks RSA"),
        (replace(GOOD, algorithm="17"), "DSA, and rpm 4.8 checks RSA"),
        (replace(GOOD, algorithm="99"), "algorithm 99"),
        (replace(GOOD, bits=8192), "8192 bits"),
        (replace(GOOD, bits=1024), "1024 bits"),
        (replace(GOOD, usage="cSEC"), "knows no subkeys"),
        (replace(GOOD, validity="r"), "revoked"),
        (replace(GOOD, validity="e"), "expired"),
        (replace(GOOD, expires=NOW), "expired"),
        (replace(GOOD, validity="d"), "disabled"),
        (replace(GOOD, here=False), "not on this machine"),
    ],
)
def test_a_key_that_cannot_be_used(key: Key, reason: str) -> None:
    assert unusable(replace(key, expires=key.expires), NOW)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(unusable(key, NOW))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_key_that_can_be_used(bits: int) -> None:
    assert unusable(replace(GOOD, bits=bits, expires=NOW + 1), NOW) == ""


def test_gpg_is_asked_for_the_key(made: Made, tmp_path: Path) -> None:
    home = made.keys.home
    for name in (made.fleet, made.fleet[-16:], "fleet@localhost"):
        assert find_signing_key(name, home).fingerprint == made.fleet
    for name, message in (
        ("nobody", "there is no secret key nobody"),
        ("localhost", "names 2 keys"),
        # A name is never an option.
        ("--version", "there is no secret key --version"),
    ):
        with pytest.raises(FsdeployError, match=message):
            find_signing_key(name, home)
    with pytest.raises(FsdeployError, match="there is no folder"):
        find_signing_key("fleet", tmp_path / "none")


def test_keys_that_rpm_4_8_cannot_check_are_refused() -> None:
    with keyring() as keys:
        keys.make("modern", "ed25519", "sign", "never")
        keys.make("gone", "rsa2048", "sign", "1d", when="20200101T000000")
        keys.make("master", "rsa2048", "cert", "never")
        for name, reason in (
            ("modern", "ed25519"),
            ("gone", "expired"),
            ("master", "knows no subkeys"),
        ):
            with pytest.raises(FsdeployError, match=reason) as problem:
                find_signing_key(name, keys.home)
            assert "rsa3072" in problem.value.hint


def test_a_public_key_is_what_hosts_get(made: Made, tmp_path: Path) -> None:
    path = made.keys.export(made.fleet, tmp_path / "key")
    assert read_public_key(path).fingerprint == made.fleet
    secret = tmp_path / "secret"
    secret.write_text(made.keys.gpg("--armor", "--export-secret-keys", made.fleet))
    with pytest.raises(FsdeployError, match="must not go to hosts"):
        read_public_key(secret)
    two = tmp_path / "two"
    two.write_text(made.keys.gpg("--armor", "--export", made.fleet, made.other))
    with pytest.raises(FsdeployError, match="has 2 public keys"):
        read_public_key(two)
    path.write_text("no key")
    with pytest.raises(FsdeployError, match="has 0 public keys"):
        read_public_key(path)
    with pytest.raises(FsdeployError, match="there is no public key"):
        read_public_key(tmp_path / "none")
