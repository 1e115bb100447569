"""Keys to sign with that are thrown away, in a GNUPGHOME of their own, and small packages."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsdeploy import run
from fsdeploy.kernel.manifest import describe_file

SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: Something small
License: GPL-2.0-only
{arch}
%global _binary_payload {payload}
%global _binary_filedigest_algorithm {digest}
%description
Something small.
%install
mkdir -p $(dirname %{{buildroot}}{file})
seq 1 2000 >%{{buildroot}}{file}
%files
{file}
"""


class Keyring:
    """A GNUPGHOME."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *words: str | Path) -> str:
        """Run gpg in it."""
        return run.run(["gpg", "--batch", *words], env={"GNUPGHOME": str(self.home)}).output

    def make(self, name: str, *kind: str, when: str = "") -> str:
        """A key without a passphrase: its fingerprint. `kind` is algorithm, usage and expiry."""
        clock = ["--faked-system-time", when] if when else []
        words = ["--passphrase", "", "--quick-generate-key", f"{name} <{name}@localhost>"]
        self.gpg("--quiet", *clock, *words, *(kind or ("rsa2048", "sign", "never")))
        listed = self.gpg("--with-colons", "--list-keys", f"<{name}@localhost>").splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def export(self, fingerprint: str, path: Path) -> Path:
        """The public key in a file."""
        path.write_text(self.gpg("--armor", "--export", fingerprint))
        return path


@contextlib.contextmanager
def keyring() -> Iterator[Keyring]:
    """A GNUPGHOME that goes with its agent. The path of an agent's socket must be short."""
    home = Path(tempfile.mkdtemp(prefix="fsd-keys-"))
    try:
        yield Keyring(home)
    finally:
        run.run(["gpgconf", "--kill", "all"], env={"GNUPGHOME": str(home)}, check=False)
        shutil.rmtree(home, ignore_errors=True)


def small_package(
    folder: Path,
    name: str = "small",
    version: str = "1",
    *,
    payload: str = "w6.gzdio",
    digest: str = "8",
    file: str = "/opt/something",
    arch: str = "noarch",
) -> Path:
    """A package of one file, not signed."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{name}.spec"
    values = {"name": name, "version": version, "payload": payload, "digest": digest}
    spec.write_text(
        SPEC.format(**values, file=file, arch="BuildArch: noarch" if arch == "noarch" else "")
    )
    target = ["--target", "x86_64"] if arch == "x86_64" else []
    run.run(["rpmbuild", "-bb", *target, "--define", f"_topdir {folder}/top", spec])
    (made,) = (folder / "top").glob(f"RPMS/*/{name}-{version}-*.rpm")
    return made.rename(folder / made.name)


def manifest_of(*packages: Path) -> Path:
    """The manifest of the build that made these, as far as its packages go; in their folder."""
    path = packages[0].parent / "manifest.json"
    path.write_text(
        json.dumps({"outputs": {package.name: describe_file(package) for package in packages}})
    )
    return path


def changed(package: Path, copy: Path) -> Path:
    """A copy of which one bit, near the end of the payload, is another."""
    data = bytearray(package.read_bytes())
    data[-100] ^= 1
    copy.write_bytes(data)
    return copy
