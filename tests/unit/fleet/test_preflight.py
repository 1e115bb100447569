"""What is said about a host before anything is done to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy.fleet.package import KernelPackage
from fsdeploy.fleet.preflight import MIB, Snapshot, judge, python_finding, snapshot_from
from tests.unit.fleet.fakes import NEW, OLD, package

GOOD = Snapshot(
    machine="x86_64",
    running=OLD,
    python="2.6.6",
    boot_free=300 * MIB,
    root_free=3000 * MIB,
    same_file_system=False,
    installed=(OLD,),
    installonly_limit=5,
    rpm="/bin/rpm",
    boot={"default_release": OLD, "traps": []},
)


@pytest.fixture
def kernel(tmp_path: Path) -> KernelPackage:
    return package(tmp_path / "k.rpm")


def test_a_good_host_gets_no_word(kernel: KernelPackage) -> None:
    assert judge(GOOD, kernel) == []


@pytest.mark.parametrize(
    ("snapshot", "check", "words"),
    [
        (replace(GOOD, machine="i686"), "machine", "i686"),
        (replace(GOOD, rpm=""), "rpm", "no rpm"),
        (replace(GOOD, has_new_kernel_pkg=False), "new-kernel-pkg", "install the package grubby"),
        (replace(GOOD, boot_free=10 * MIB), "space", "/boot has 10 MiB free"),
        (replace(GOOD, root_free=10 * MIB), "space", "/ has 10 MiB free"),
        (
            replace(GOOD, root_free=60 * MIB, boot_free=60 * MIB, same_file_system=True),
            "space",
            "/ has 60 MiB free",
        ),
        (replace(GOOD, boot={"default_release": ""}), "default-entry", "no kernel"),
        (replace(GOOD, boot={"default_release": "3.10"}), "default-entry", "would boot 3.10"),
        (
            replace(GOOD, boot={"default_release": OLD, "once_release": NEW}),
            "boot-once",
            "already armed",
        ),
        (
            replace(GOOD, boot={"traps": [{"message": "no way", "remedy": "go home"}]}),
            "boot-loader",
            "no way; go home",
        ),
    ],
)
def test_refusals(kernel: KernelPackage, snapshot: Snapshot, check: str, words: str) -> None:
    findings = judge(snapshot, kernel)
    assert [(finding.check, finding.refused) for finding in findings] == [(check, True)]
    assert words in str(findings[0])


def test_warnings_do_not_keep_a_host_out(kernel: KernelPackage) -> None:
    snapshot = replace(GOOD, kmods=("a", "b", "c", "d", "e"), installonly_limit=1)
    findings = judge(snapshot, kernel)
    assert [finding.check for finding in findings] == ["installonly-limit", "third-party-modules"]
    assert not any(finding.refused for finding in findings)
    assert "a, b, c, d, …" in str(findings[1])


def test_a_kernel_that_is_installed_needs_no_space(kernel: KernelPackage) -> None:
    assert judge(replace(GOOD, installed=(OLD, NEW), boot_free=0, root_free=0), kernel) == []


def test_python() -> None:
    assert python_finding("2.6.6") is None
    assert python_finding("3.11.2") is None
    assert python_finding("2.4.3")


def test_a_snapshot_from_what_the_modules_say() -> None:
    snapshot = snapshot_from({"machine": "x86_64", "other": 1, "rpm": None}, {"kind": "x"})
    assert snapshot == Snapshot(machine="x86_64", boot={"kind": "x"})
