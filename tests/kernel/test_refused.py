# SPDX-License-Identifier: GPL-2.0-only
"""fastsocket.ko and a kernel without the series: the program of `refused/` in a stock guest."""

from __future__ import annotations

import pathlib

import pytest

from fsdeploy.lab import guest, initramfs
from tests.kernel.conftest import Kernels
from tests.kernel.programs import HERE, options

pytestmark = [pytest.mark.guest, pytest.mark.build, pytest.mark.el6]


def test_a_stock_kernel_refuses_the_module(kernels: Kernels, tmp_path: pathlib.Path) -> None:
    module = kernels.module("el6", "patched", "fastsocket")
    kernel = kernels.image("el6", "stock")
    source = HERE / "refused" / "insmod.c"
    guest.compile_program(source, tmp_path / "insmod", include=[HERE])
    result = guest.run_guest(
        guest.Guest(
            kernel,
            (guest.Program("insmod", tmp_path / "insmod", options(source).seconds),),
            # Not one of the guest's own modules: those are loaded before the first program.
            files={f"/modules/{module.name}": initramfs.File(module.read_bytes())},
        ),
        tmp_path / "run",
    )
    assert not result.failures(), result.log
    said = result.log.read_text(encoding="utf-8", errors="replace")
    assert "fastsocket: Unknown symbol inet_listen_arm" in said
