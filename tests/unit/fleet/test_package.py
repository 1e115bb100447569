"""What is read from a kernel package on the control machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.package import is_patched, read_package
from fsdeploy.kernel.manifest import copy_out
from fsdeploy.repository.publish import PublishRequest, publish
from tests.keys import keyring, manifest_of, small_package


def kernel_package(folder: Path, payload: str = "w6.gzdio") -> Path:
    """A small package that brings a kernel, as far as its files tell."""
    return small_package(folder, "kernel", payload=payload, file="/boot/vmlinuz-1-1", arch="x86_64")


@pytest.mark.parametrize(
    ("release", "patched"),
    [
        ("2.6.32-431.el6.fs1.0123abcd.x86_64", True),
        ("6.1.192-fs1.0123abcd.x86_64", True),
        ("6.1.192-fs12.0123abcd.x86_64", True),
        ("6.1.192-stock.0123abcd.x86_64", False),
        ("2.6.32-431.el6.x86_64", False),
    ],
)
def test_our_kernels_are_known_by_their_release(release: str, patched: bool) -> None:
    assert is_patched(release) is patched


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="there is no package"):
        read_package(tmp_path / "no.rpm")


def test_a_file_that_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "kernel.rpm"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(FsdeployError, match="not a whole RPM"):
        read_package(path)


def test_a_package_that_is_not_what_was_built(tmp_path: Path) -> None:
    built = kernel_package(tmp_path / "built")
    (kernel, _) = copy_out([built], manifest_of(built), tmp_path / "rpms")
    assert read_package(kernel).release == "1-1"
    # Another one even if both are made in the same second.
    kernel.write_bytes(kernel_package(tmp_path / "again", "w1.gzdio").read_bytes())
    with pytest.raises(FsdeployError, match="is not what was built"):
        read_package(kernel)


def test_a_package_of_a_repository_must_be_signed_with_its_key(tmp_path: Path) -> None:
    with keyring() as keys:
        fleet, other = keys.make("fleet"), keys.make("other")
        kernel = kernel_package(tmp_path)
        published = publish(PublishRequest((kernel,), fleet, tmp_path / "repository", keys.home))
        stranger = keys.export(other, tmp_path / "other.asc")
    inside = published.path_of(published.added[0])
    assert read_package(kernel).key is None
    package = read_package(inside)
    assert package.key
    assert (package.key.path, package.key.fingerprint) == (published.public_key, fleet)
    assert package.release == "1-1"
    assert read_package(inside, published.public_key) == package
    with pytest.raises(FsdeployError, match=f"must be signed with the key {fleet}.*is not signed"):
        read_package(kernel, published.public_key)
    with pytest.raises(FsdeployError, match=f"must be signed with the key {other}"):
        read_package(inside, stranger)
    inside.write_bytes(kernel.read_bytes())
    with pytest.raises(FsdeployError, match="is not signed"):
        read_package(inside)
