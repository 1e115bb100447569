# SPDX-License-Identifier: GPL-2.0-only
"""Kernels small enough for a unit test: their Makefile answers what the tool asks of make."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.source import Source
from fsdeploy.kernel.target import Target

# How long an example takes says more about the machine than about us.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0
VERSION = {version}
PATCHLEVEL = {patchlevel}
SUBLEVEL = {sublevel}
EXTRAVERSION =
{rhel}
KERNELRELEASE = $(VERSION).$(PATCHLEVEL).$(SUBLEVEL)$(EXTRAVERSION)
CONFIG_LOCALVERSION = $(shell sed -n 's/^CONFIG_LOCALVERSION="\\(.*\\)"/\\1/p' .config)

# Kconfig drops what does not fit without a word.
allnoconfig:
	grep -v CONFIG_UNKNOWN $(KCONFIG_ALLCONFIG) > .config

loose_nonint_oldconfig olddefconfig:
	sed -i /CONFIG_UNKNOWN/d .config

include/config/kernel.release:
	mkdir -p include/config include/generated include/linux
	echo '/*' > include/linux/autoconf.h
	date -d "@1$$(date +%N)" '+ * %a %b %e %T %Y' >> include/linux/autoconf.h
	echo ' */' >> include/linux/autoconf.h
	echo $(KERNELRELEASE)$(CONFIG_LOCALVERSION) > $@
	echo '#define UTS_RELEASE "$(KERNELRELEASE)"' > include/generated/utsrelease.h

kernel/late.o: include/config/kernel.release

%.o: %.c
	@echo "  CC      $@"
	$(CC) -O2 -Iinclude/generated -c -o $@ $<
	@if grep -q CONFIG_SLOW .config && [ $@ = kernel/late.o ]; then sleep 30; fi

vmlinux: kernel/early.o kernel/late.o
	@echo "  LD      $@"
	$(LD) -r -o $@ $^
	echo 0 T start > System.map
	printf '0x%08x\\tsymbol_a\\tvmlinux\\tEXPORT_SYMBOL\\n' $(shell cat crc) > Module.symvers
	printf '0x00000002\\tsymbol_b\\tvmlinux\\tEXPORT_SYMBOL\\n' >> Module.symvers

bzImage: vmlinux
	mkdir -p arch/x86/boot
	cp vmlinux arch/x86/boot/bzImage

ifdef M
modules: vmlinux
	cp $(M)/own.c $(M)/own.ko

modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/$(KERNELRELEASE)/$(INSTALL_MOD_DIR)
	cp $(M)/own.ko $(INSTALL_MOD_PATH)/lib/modules/$(KERNELRELEASE)/$(INSTALL_MOD_DIR)/
else
modules: vmlinux
	@echo "  CC [M]  kernel/extra.ko"
	$(CC) -c -o kernel/extra.ko kernel/extra.c

modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/$(KERNELRELEASE)/kernel
	cp kernel/extra.ko $(INSTALL_MOD_PATH)/lib/modules/$(KERNELRELEASE)/kernel/
	ln -sfn $(CURDIR) $(INSTALL_MOD_PATH)/lib/modules/$(KERNELRELEASE)/build
endif
"""

EARLY = "int first = 1;\nint second = 2;\nint third = 3;\nint fourth = 4;\nint fifth = 5;\n"

PATCH = """\
From: A Developer <developer@localhost>
Date: Mon, 2 Mar 2026 10:00:00 +0000
Subject: [PATCH] {subject}
Patch-mainline: Never, an example

Why it is there. Takes no lock. Tested: it compiles.
---
 {file} | 2 +-

diff --git a/{file} b/{file}
--- a/{file}
+++ b/{file}
{hunk}"""

HUNK = """\
@@ -1,5 +1,5 @@
 int first = 1;
 int second = 2;
-int third = 3;
+int third = 33;
 int fourth = 4;
 int fifth = 5;
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache and state of a test are its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))


def write_tree(tree: Path, version: str = "6.1.100", rhel_release: str = "") -> Path:
    """A kernel tree; a distribution's with RHEL_RELEASE."""
    numbers = dict(zip(("version", "patchlevel", "sublevel"), version.split("."), strict=True))
    rhel = "RHEL_MAJOR = 6\nRHEL_MINOR = 5\nRHEL_RELEASE = " + rhel_release if rhel_release else ""
    for folder in ("kernel", "scripts/kconfig", "include", "arch/x86/include"):
        (tree / folder).mkdir(parents=True)
    (tree / "Makefile").write_text(MAKEFILE.format(**numbers, rhel=rhel))
    (tree / "crc").write_text("17\n")
    rule = "loose_nonint_oldconfig" if rhel_release else "olddefconfig"
    (tree / "scripts/kconfig/Makefile").write_text(f"{rule}:\n")
    (tree / "kernel/early.c").write_text(EARLY)
    (tree / "kernel/late.c").write_text(
        '#include "utsrelease.h"\nconst char release[] = UTS_RELEASE;\n'
    )
    (tree / "kernel/extra.c").write_text("int extra;\n")
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "linux-6.1.100")


TargetMaker = Callable[..., Target]


@pytest.fixture
def make_target(tmp_path: Path) -> TargetMaker:
    """A target with one fragment `small`, and patches by name."""

    def make(
        config: str = "CONFIG_MODULES=y\n",
        patches: dict[str, str] | None = None,
        base: str = "allnoconfig",
        version: str = "6.1",
        releases: str = '["6.1.*"]',
    ) -> Target:
        folder, series = tmp_path / "kernel-config/fake", tmp_path / "patches/fake"
        for one in (folder, series):
            one.mkdir(parents=True, exist_ok=True)
        (folder / "target.toml").write_text(
            f'name = "fake"\ntitle = "A fake"\nversion = "{version}"\nreleases = {releases}\n'
            f'revision = 1\n[fragments.small]\nbase = "{base}"\nspace_mb = 1\n'
            "[fragments.overlay]\n"
        )
        (folder / "small.config").write_text(config)
        (folder / "overlay.config").write_text("")
        for name, text in (patches or {}).items():
            (series / name).write_text(text)
        (series / "series").write_text("".join(f"{name}\n" for name in patches or {}))
        return targets.read(folder, series)

    return make


def pack(tree: Path, path: Path, mode: str = "w:xz") -> Path:
    """A tarball of a tree."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(tree, arcname=tree.name)
    return path


SPEC = """\
Name: {name}
Version: 2.6.32
Release: {release}
Summary: A kernel
License: GPLv2
Source0: linux-2.6.32-{release}.tar.bz2
{sources}
%description
A kernel.
%prep
ApplyOptionalPatch linux-kernel-test.patch
%changelog
"""

DISTRIBUTION = {
    "config-generic": "CONFIG_MODULES=y\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n",
    "config-generic-rhel": "CONFIG_C=y\nCONFIG_RHEL=y\n",
    "config-nodebug": "# CONFIG_DEBUG is not set\n",
    "config-x86_64-generic": "CONFIG_B=y\nCONFIG_X86_64=y\n",
    "config-x86_64-generic-rhel": "CONFIG_X86_64_RHEL=y\n",
    "config-x86_64-nodebug": "",
    "merge.pl": "#! /usr/bin/perl\n",
    "Makefile.config": "configs:\n",
    "Module.kabi_x86_64": "0x00000011\tsymbol_a\tvmlinux\tEXPORT_SYMBOL\n"
    "0x00000002\tsymbol_b\tvmlinux\tEXPORT_SYMBOL\n"
    "0x00000003\tnot_in_this_configuration\tvmlinux\tEXPORT_SYMBOL\n",
    "linux-kernel-test.patch": "",
}

SrpmMaker = Callable[..., Path]


@pytest.fixture
def make_srpm(tmp_path: Path) -> SrpmMaker:
    """A source RPM in the layout of CentOS's kernel package."""

    def make(
        release: str = "431.el6",
        rhel_release: str = "430",
        name: str = "kernel",
        files: dict[str, str] = DISTRIBUTION,
    ) -> Path:
        top = tmp_path / "srpm"
        sources = top / "SOURCES"
        sources.mkdir(parents=True)
        tree = write_tree(top / f"linux-2.6.32-{release}", "2.6.32", rhel_release)
        pack(tree, sources / f"{tree.name}.tar.bz2", "w:bz2")
        for file, text in files.items():
            (sources / file).write_text(text)
        listed = "\n".join(f"Source{number}: {file}" for number, file in enumerate(files, 1))
        spec = top / "kernel.spec"
        spec.write_text(SPEC.format(name=name, release=release, sources=listed))
        subprocess.run(
            ["rpmbuild", "-bs", "--define", f"_topdir {top}", "--target", "x86_64", spec],
            check=True,
            capture_output=True,
        )
        return next((top / "SRPMS").glob("*.src.rpm"))

    return make


@pytest.fixture
def el6_source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """The user's own cached source; skips where there is none."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "CCACHE_DIR"):
        monkeypatch.delenv(name)
    found = sources.find(targets.load("el6"))
    if found is None or found.distribution is None:
        pytest.skip("no el6 source RPM in the cache: fsdeploy source add PATH")
    return found
