# SPDX-License-Identifier: GPL-2.0-only
"""Judges a host before anything is changed on it: from what it looks like to a list of findings.

The host module `host_preflight` collects, nothing here asks a host. Every finding is one sentence
with a remedy; a refusal keeps the host out of the rollout, a warning does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsdeploy.fleet.package import KernelPackage

MIB = 1024 * 1024
_SPARE_BYTES = 20 * MIB  # left free beside what the package needs
# An initrd of CentOS 6 has 15 to 20 MiB; it is made on the host and not in the package's size.
_INITRD_BYTES = 24 * MIB


@dataclass(frozen=True)
class Finding:
    """One sentence about a host. `refused` keeps it out of the rollout."""

    refused: bool
    check: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


@dataclass(frozen=True)
class Snapshot:
    """What host_preflight and boot_entry (gathered) say about a host."""

    machine: str = ""
    running: str = ""
    boot_id: str = ""
    distribution: str = ""
    python: str = ""
    boot_free: int = 0
    root_free: int = 0
    same_file_system: bool = True
    installed: Sequence[str] = ()
    installonly_limit: int = 0
    kmods: Sequence[str] = ()
    rpm: str = ""
    has_new_kernel_pkg: bool = True
    interfaces: Sequence[Mapping[str, Any]] = ()
    boot: Mapping[str, Any] = field(default_factory=dict)


def snapshot_from(host: Mapping[str, Any], boot: Mapping[str, Any]) -> Snapshot:
    """From the answers of the two host modules; a value that is missing keeps its default."""
    known = {
        name: host[name]
        for name in Snapshot.__dataclass_fields__
        if name != "boot" and host.get(name) is not None
    }
    return Snapshot(**known, boot=boot)


def default_release(boot: Mapping[str, Any]) -> str:
    """The release the boot loader starts when nobody intervenes; empty when it cannot be told."""
    return str(boot.get("default_release") or "")


def judge(snapshot: Snapshot, package: KernelPackage) -> list[Finding]:
    """All that is to be said about bringing the package to this host; refusals first."""
    findings = [
        *_machine(snapshot),
        *_boot_loader(snapshot),
        *_space(snapshot, package),
        *_kernels(snapshot, package),
        *_modules(snapshot),
    ]
    return sorted(findings, key=lambda finding: not finding.refused)


def _machine(snapshot: Snapshot) -> list[Finding]:
    findings = []
    if snapshot.machine != "x86_64":
        findings.append(
            Finding(True, "machine", f"the machine is {snapshot.machine}, the kernel is for x86_64")
        )
    if not snapshot.rpm:
        findings.append(
            Finding(
                True, "rpm", "there is no rpm on the host", "fsdeploy manages hosts made of RPMs"
            )
        )
    if not snapshot.has_new_kernel_pkg:
        findings.append(
            Finding(
                True,
                "new-kernel-pkg",
                "/sbin/new-kernel-pkg is missing, nothing would add the kernel to the boot loader",
                "install the package grubby",
            )
        )
    return findings


def _boot_loader(snapshot: Snapshot) -> list[Finding]:
    boot = snapshot.boot
    findings = [
        Finding(True, "boot-loader", str(trap.get("message")), str(trap.get("remedy") or ""))
        for trap in boot.get("traps", ())
    ]
    default = default_release(boot)
    if not default and not findings:
        findings.append(
            Finding(
                True,
                "default-entry",
                "the boot loader's default entry starts no kernel that can be recognised",
                "make an entry with a kernel /boot/vmlinuz-RELEASE the default",
            )
        )
    if default and snapshot.running and default != snapshot.running:
        findings.append(
            Finding(
                True,
                "default-entry",
                f"the host runs {snapshot.running} but would boot {default}: the way back would"
                " not lead to what runs now",
                f"boot the host, or make {snapshot.running} the default",
            )
        )
    if boot.get("once_release"):
        findings.append(
            Finding(
                True,
                "boot-once",
                f"a single boot into {boot['once_release']} is already armed",
                "boot the host or take it back before a rollout",
            )
        )
    return findings


def _space(snapshot: Snapshot, package: KernelPackage) -> list[Finding]:
    installed = package.release in snapshot.installed
    if installed:
        return []
    boot_need = package.boot_bytes + _INITRD_BYTES + _SPARE_BYTES
    # The RPM itself is copied to /var as well.
    root_need = package.root_bytes + package.path.stat().st_size + _SPARE_BYTES
    if snapshot.same_file_system:
        boot_need, root_need = 0, boot_need + root_need
    findings = []
    for place, free, need in (
        ("/boot", snapshot.boot_free, boot_need),
        ("/", snapshot.root_free, root_need),
    ):
        if free < need:
            findings.append(
                Finding(
                    True,
                    "space",
                    f"{place} has {free // MIB} MiB free, the kernel needs {-(-need // MIB)} MiB",
                    "remove a kernel that is no longer booted (rpm -e), never the running one"
                    if place == "/boot"
                    else "free some space",
                )
            )
    return findings


def _kernels(snapshot: Snapshot, package: KernelPackage) -> list[Finding]:
    findings = []
    limit = snapshot.installonly_limit
    others = [release for release in snapshot.installed if release != package.release]
    if limit and len(others) + 1 > limit:
        findings.append(
            Finding(
                False,
                "installonly-limit",
                f"{len(others)} kernels are installed and yum keeps {limit}: its next kernel update"
                " may remove the one to fall back to",
                "raise installonly_limit in /etc/yum.conf",
            )
        )
    return findings


def _modules(snapshot: Snapshot) -> list[Finding]:
    if not snapshot.kmods:
        return []
    few = ", ".join(snapshot.kmods[:4]) + (", …" if len(snapshot.kmods) > 4 else "")
    return [
        Finding(
            False,
            "third-party-modules",
            f"the running kernel uses modules from outside its package: {few}",
            "check after the trial that they load; they rely on the kernel's binary interface",
        )
    ]


_OLD_PYTHON = re.compile(r"^2\.[0-5](\.|$)")


def python_finding(version: str) -> Finding | None:
    """Whether Ansible can work with the host's Python."""
    if version and _OLD_PYTHON.match(version):
        return Finding(
            True, "python", f"the host's Python is {version}, 2.6 is the oldest that works"
        )
    return None
