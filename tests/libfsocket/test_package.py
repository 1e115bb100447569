# SPDX-License-Identifier: GPL-2.0-only
"""The library's file and package: for CentOS 6's C library and rpm, and the same every time."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fsdeploy import cli, paths, run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import library, package
from fsdeploy.kernel.library import Library

WRAPPED = {
    "accept", "accept4", "clone", "close", "close_range", "closefrom", "dup", "dup2", "dup3",
    "epoll_ctl", "fcntl", "fcntl64", "listen", "pthread_create", "pthread_setaffinity_np",
    "sched_setaffinity", "shutdown", "socket", "vfork",
}  # fmt: skip


def symbols(path: Path, *, defined: bool) -> set[str]:
    listed = run.run(["readelf", "--dyn-syms", "--wide", path]).output.splitlines()
    rows = [line.split() for line in listed if line.strip()[:1].isdigit()]
    return {
        row[7].partition("@")[0] for row in rows if len(row) > 7 and (row[6] != "UND") == defined
    }


def test_only_what_is_wrapped_is_exported(built: Library) -> None:
    assert symbols(built.shared_object, defined=True) == WRAPPED


def test_each_wrapped_function_has_its_file() -> None:
    files = {path.stem for path in (paths.data_root() / "libfsocket").glob("*.c")}
    assert files >= WRAPPED


def test_it_needs_no_symbol_newer_than_glibc_2_12(built: Library) -> None:
    assert library.newer_symbols(built.shared_object) == ()
    listed = run.run(["objdump", "-T", built.shared_object]).output
    versions = {word.strip("()") for word in listed.split() if word.startswith("(GLIBC_")}
    assert versions
    assert versions <= {"GLIBC_2.2.5", "GLIBC_2.3.2"}
    needed = run.run(["readelf", "-d", built.shared_object]).output
    assert [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line] == [
        "libc.so.6",
        "libdl.so.2",
    ]


def test_a_symbol_that_is_too_new_is_found(tmp_path: Path) -> None:
    source = tmp_path / "new.c"
    # memcpy of 2.14 is the first that CentOS 6 does not have.
    source.write_text(
        "#include <string.h>\n"
        "void *volatile there;\n"
        "void f(void *to, void *from, unsigned long n) { memcpy(to, from, n); }\n"
    )
    output = tmp_path / "new.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", output, source], check=True)
    assert library.newer_symbols(output) == ("GLIBC_2.14",)


def test_a_file_without_symbol_versions_is_not_passed(tmp_path: Path) -> None:
    source, output = tmp_path / "none.c", tmp_path / "none.so"
    source.write_text("int nothing;\n")
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", output, source], check=True)
    with pytest.raises(FsdeployError, match="names no version of the C library"):
        library.newer_symbols(output)


def test_it_loads_on_this_machine(built: Library) -> None:
    # What the dynamic linker can't load it complains about, and goes on.
    ended = subprocess.run(
        ["cat", "/proc/self/maps"],
        env={"LD_PRELOAD": str(built.shared_object), "LD_BIND_NOW": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(built.shared_object) in ended.stdout
    assert ended.stderr == ""


def test_the_package_is_for_rpm_4_8(built: Library) -> None:
    assert set(package.rpmlib_features(built.rpm)) <= package.RPM_4_8_FEATURES
    tags = r"%{NAME} %{ARCH} %{PAYLOADCOMPRESSOR} %{FILEDIGESTALGO} %{BUILDHOST}"
    query = ["rpm", "-qp", "--nosignature"]
    assert run.run([*query, "--qf", tags, built.rpm]).output == "libfsocket x86_64 gzip 8 fsdeploy"
    requires = run.run([*query, "--requires", built.rpm]).output.splitlines()
    assert {line for line in requires if not line.startswith("rpmlib(")} == {
        "/bin/sh", "/sbin/ldconfig", "libc.so.6()(64bit)", "libc.so.6(GLIBC_2.2.5)(64bit)",
        "libc.so.6(GLIBC_2.3.2)(64bit)", "libdl.so.2()(64bit)", "libdl.so.2(GLIBC_2.2.5)(64bit)",
    }  # fmt: skip


def test_the_package_holds_the_library_its_runner_and_their_pages(built: Library) -> None:
    listed = run.run(["rpm", "-qp", "--nosignature", "-lv", built.rpm]).output.splitlines()
    modes = {line.split()[-1]: line.split()[0] for line in listed}
    assert modes == {
        "/usr/bin/fsocket-run": "-rwxr-xr-x",
        "/usr/lib64/libfsocket.so": "-rwxr-xr-x",
        "/usr/share/fsdeploy": "drwxr-xr-x",
        "/usr/share/fsdeploy/libfsocket": "drwxr-xr-x",
        "/usr/share/fsdeploy/libfsocket/manifest.json": "-rw-r--r--",
        "/usr/share/man/man1/fsocket-run.1": "-rw-r--r--",
        "/usr/share/man/man7/libfsocket.7": "-rw-r--r--",
    }


def test_the_manifest_says_what_went_in_and_came_out(built: Library) -> None:
    manifest = json.loads(built.manifest.read_text())
    inside = json.loads(
        (built.directory / "root/usr/share/fsdeploy/libfsocket/manifest.json").read_text()
    )
    assert set(manifest["outputs"]) == {built.rpm.name, "root/usr/lib64/libfsocket.so"}
    assert {name: value for name, value in manifest.items() if name != "outputs"} == inside
    assert "libfsocket/accept.c" in inside["sources"]
    assert "modules/fastsocket/fastsocket_abi.h" in inside["sources"]


def test_two_builds_in_two_places_are_the_same_bytes(
    built: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another/place"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    again = library.build_library()
    assert again.directory != built.directory
    assert again.shared_object.read_bytes() == built.shared_object.read_bytes()
    assert again.rpm.read_bytes() == built.rpm.read_bytes()


def test_the_same_inputs_are_not_built_twice(
    built: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_make", None)
    assert library.build_library() == built


@pytest.fixture
def copied_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "data"
    for name in ("libfsocket", "modules"):
        shutil.copytree(paths.data_root() / name, root / name)
    monkeypatch.setattr(paths, "data_root", lambda: root)
    return root


@pytest.mark.parametrize(
    "name", ["libfsocket/close.c", "libfsocket/Makefile", "modules/fastsocket/fastsocket_abi.h"]
)
def test_a_changed_source_is_another_build(copied_sources: Path, name: str) -> None:
    before = library.identify()
    assert library.identify() == before
    with (copied_sources / name).open("a") as file:
        file.write("\n")
    assert library.identify().build_id != before.build_id


def test_a_build_that_is_not_whole_is_none(
    built: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = library.identify()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = tmp_path / "fsdeploy/builds" / identity.name
    shutil.copytree(built.directory, copy)
    assert library.existing(identity) is not None
    (copy / built.rpm.name).write_bytes(built.rpm.read_bytes()[:100])
    assert library.existing(identity) is None


def test_without_its_compiler_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(FsdeployError) as caught:
        library.build_library()
    assert caught.value.hint == "pip install 'fsdeploy[build]'"


def test_the_command_copies_the_package(
    built: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rpms"
    assert cli.main(["build-library", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output / built.rpm.name}\n"
    assert (output / built.rpm.name).read_bytes() == built.rpm.read_bytes()
    beside = output / f"{built.rpm.stem}.manifest.json"
    assert beside.read_bytes() == built.manifest.read_bytes()
    assert cli.main(["build-library", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rpm"] == str(built.rpm)
