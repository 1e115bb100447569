# SPDX-License-Identifier: GPL-2.0-only
"""OpenPGP keys, as far as rpm 4.8 can check what they sign.

It knows RSA, and of a key only its primary part: what a subkey signed it calls signed by a key
that it does not have.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError

# Name of the public key in a repository.
PUBLIC_KEY = "RPM-GPG-KEY-fsdeploy"

_RSA = "1"
_ALGORITHMS = {"17": "DSA", "18": "ECDH", "19": "ECDSA", "22": "EdDSA (ed25519)"}
_LEAST_BITS, _MOST_BITS = 2048, 4096
_NEW_KEY = "gpg --quick-generate-key 'NAME <ADDRESS>' rsa3072 sign makes one that can be used"


@dataclass(frozen=True)
class Key:
    """The primary part of a key, as gpg lists it. `here`: whether its secret part can be used."""

    fingerprint: str
    algorithm: str
    bits: int
    validity: str
    expires: float | None
    usage: str
    secret: bool = False
    here: bool = False


def parse_listing(text: str) -> list[Key]:
    """Keys in what `gpg --with-colons` lists (doc/DETAILS of GnuPG)."""
    found: list[Key] = []
    fields: list[str] | None = None
    for line in text.splitlines():
        words = line.split(":")
        if words[0] in ("pub", "sec"):
            fields = words
        elif words[0] == "fpr" and fields is not None:
            # The first one after it; those of subkeys follow.
            found.append(
                Key(
                    fingerprint=words[9],
                    algorithm=fields[3],
                    bits=int(fields[2] or 0),
                    validity=fields[1],
                    expires=float(fields[6]) if fields[6] else None,
                    usage=fields[11],
                    secret=fields[0] == "sec",
                    # "#" stands for a secret part that is kept elsewhere.
                    here=fields[0] == "sec" and fields[14] != "#",
                )
            )
            fields = None
    return found


def unfit(key: Key) -> str:
    """Why rpm 4.8 cannot check what the key signs; empty when it can."""
    if key.algorithm != _RSA:
        name = _ALGORITHMS.get(key.algorithm, f"algorithm {key.algorithm}")
        return f"it is of the kind {name}, and rpm 4.8 checks RSA only"
    if not _LEAST_BITS <= key.bits <= _MOST_BITS:
        return f"it has {key.bits} bits; RSA of {_LEAST_BITS} to {_MOST_BITS} bits can be used"
    if "s" not in key.usage:
        return "its primary part is not for signing, and rpm 4.8 knows no subkeys"
    return ""


def unusable(key: Key, now: float) -> str:
    """Why nothing can be signed with the key for rpm 4.8; empty when it can."""
    if key.validity == "r":
        return "it is revoked"
    if key.validity == "e" or (key.expires is not None and key.expires <= now):
        return "it has expired"
    if key.validity in ("d", "i"):
        return "it is disabled or not valid"
    if problem := unfit(key):
        return problem
    return "" if key.here else "its secret part is not on this machine"


@dataclass(frozen=True)
class SigningKey:
    """A key to sign with, and the environment in which gpg finds it."""

    fingerprint: str
    environment: Mapping[str, str]

    def export(self) -> str:
        """The public key, for hosts."""
        with tempfile.TemporaryDirectory(prefix="fsdeploy-key-") as folder:
            # To a file: what gpg has to say beside it is not part of the key.
            path = Path(folder) / PUBLIC_KEY
            words = ["gpg", "--batch", "--armor", "--output", str(path)]
            words += ["--export-options", "export-minimal", "--export", self.fingerprint]
            run.run(words, env=self.environment)
            return path.read_text(encoding="ascii")

    def sign_file(self, path: Path, signature: Path) -> None:
        """A signature beside a file."""
        words = ["gpg", "--batch", "--yes", "--armor", "--digest-algo", "SHA256"]
        words += ["--local-user", f"{self.fingerprint}!", "--output", str(signature)]
        run.run([*words, "--detach-sign", path], env=self.environment, hint=self.unlock)

    def has_signed_file(self, path: Path, signature: Path) -> bool:
        """Whether the signature beside a file is this key's."""
        words = ["gpg", "--batch", "--status-fd", "1", "--verify"]
        ended = run.run([*words, signature, path], env=self.environment, check=False)
        valid = f"[GNUPG:] VALIDSIG {self.fingerprint} "
        return ended.returncode == 0 and valid in ended.output

    def sign_package(self, path: Path) -> None:
        """Sign an RPM in place: its header, and header and payload together.

        The second is what rpm before 4.14 needs: with a signed header alone it takes any payload.
        """
        words = ["rpmsign", "--addsign", "--rpmv3"]
        for name, value in (
            ("__gpg", str(run.find("gpg"))),
            # With the mark gpg does not take a subkey instead.
            ("_gpg_name", f"{self.fingerprint}!"),
            ("_gpg_digest_algo", "sha256"),
        ):
            words += ["--define", f"{name} {value}"]
        run.run([*words, path], env=self.environment, hint=self.unlock)

    @property
    def unlock(self) -> str:
        """What to do when gpg does not sign."""
        return (
            "if the key has a passphrase, unlock it in this terminal first:"
            f" export GPG_TTY=$(tty); echo | gpg --local-user {self.fingerprint} --detach-sign"
            " >/dev/null"
        )


def find_signing_key(name: str, home: Path | None = None) -> SigningKey:
    """The key that a user names by id, fingerprint or address.

    FsdeployError when there is none, more than one, or none that rpm 4.8 could check.
    """
    run.require("gpg", "gpg-agent")
    where = _environment(home)
    if home is not None and not home.is_dir():
        raise FsdeployError(f"--gnupg-home: there is no folder {home}")
    words = ["gpg", "--batch", "--with-colons", "--fixed-list-mode"]
    asked = run.run([*words, "--list-secret-keys", "--", name], env=where, check=False)
    keys = parse_listing(asked.output)
    if not keys:
        raise FsdeployError(
            f"there is no secret key {name} in {where.get('GNUPGHOME', '~/.gnupg')}",
            hint="gpg --list-secret-keys shows those there are (--gnupg-home names another"
            f" folder); {_NEW_KEY}",
        )
    if len(keys) > 1:
        raise FsdeployError(
            f"{name} names {len(keys)} keys",
            hint="give one fingerprint: " + ", ".join(key.fingerprint for key in keys),
        )
    (key,) = keys
    if problem := unusable(key, time.time()):
        raise FsdeployError(
            f"the key {key.fingerprint} cannot be used: {problem}", hint=f"take another; {_NEW_KEY}"
        )
    return SigningKey(key.fingerprint, where)


def _environment(home: Path | None) -> dict[str, str]:
    # The terminal is the agent's, which asks for a passphrase there.
    kept = {name: os.environ[name] for name in ("GNUPGHOME", "GPG_TTY") if name in os.environ}
    return {**kept, **({"GNUPGHOME": str(home.resolve())} if home else {})}


@dataclass(frozen=True)
class PublicKey:
    """A file with the public key that packages must be signed with."""

    path: Path
    fingerprint: str


def read_public_key(path: Path) -> PublicKey:
    """Look at a public key for hosts. FsdeployError when it is none that rpm 4.8 can use."""
    if not path.is_file():
        raise FsdeployError(
            f"there is no public key {path}",
            hint=f"fsdeploy publish puts one beside the packages, {PUBLIC_KEY}",
        )
    run.require("gpg")
    with tempfile.TemporaryDirectory(prefix="fsdeploy-key-") as home:
        words = ["gpg", "--batch", "--with-colons", "--fixed-list-mode", "--show-keys"]
        asked = run.run([*words, path], env={"GNUPGHOME": home}, check=False)
    keys = parse_listing(asked.output)
    _refuse(path, keys)
    return PublicKey(path.resolve(), keys[0].fingerprint)


def _refuse(path: Path, keys: Sequence[Key]) -> None:
    if len(keys) != 1:
        raise FsdeployError(
            f"{path} has {len(keys)} public keys, wanted is one",
            hint="gpg --armor --export FINGERPRINT writes one",
        )
    if keys[0].secret:
        raise FsdeployError(
            f"{path} is a secret key: it must not go to hosts",
            hint="gpg --armor --export FINGERPRINT writes the public one",
        )
    if problem := unfit(keys[0]):
        raise FsdeployError(f"the key in {path} cannot be used: {problem}", hint=_NEW_KEY)
