# SPDX-License-Identifier: GPL-2.0-only
"""Staging: what comes out of a compiled tree.

`out/root` is what the packages install; `vmlinux` and `Module.symvers` beside it are for the tool.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fsdeploy import run
from fsdeploy.kernel import store
from fsdeploy.kernel.make import Make

# What a build of external modules reads: rules, headers, programs, symbol versions.
_FOR_MODULES = (
    "Makefile",
    "Kbuild",
    "Kconfig",
    ".config",
    "Module.symvers",
    "System.map",
    "include",
    "scripts",
    "arch/x86/include",
    "arch/x86/scripts",
    "tools/objtool/objtool",
)


def stage(make: Make, release: str, out: Path, *, modules: bool) -> None:
    """Fill `out`, which is not there yet. `modules`: whether the kernel has any."""
    tree, root = make.tree, out / "root"
    boot = root / "boot"
    boot.mkdir(parents=True)
    shutil.copyfile(tree / "arch/x86/boot/bzImage", boot / f"vmlinuz-{release}")
    shutil.copyfile(tree / "System.map", boot / f"System.map-{release}")
    shutil.copyfile(tree / ".config", boot / f"config-{release}")
    symvers = tree / "Module.symvers"
    content = symvers.read_bytes() if symvers.exists() else b""
    (out / "Module.symvers").write_bytes(content)
    (boot / f"symvers-{release}.gz").write_bytes(gzip.compress(content, mtime=0))
    os.link(tree / "vmlinux", out / "vmlinux")
    folder = root / "lib/modules" / release
    folder.mkdir(parents=True)
    if modules:
        # depmod runs where the modules are installed.
        make.run(
            "modules_install", f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1",
            "DEPMOD=/bin/true",
        )  # fmt: skip
    headers = root / "usr/src/kernels" / release
    for link, goal in (("build", f"/usr/src/kernels/{release}"), ("source", "build")):
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(goal)
    _stage_headers(make, headers, out.parent)


def module_folder(name: str) -> str:
    """Where a module of ours is installed, below lib/modules/RELEASE."""
    return f"extra/{name}"


def compile_module(make: Make, sources: Path) -> None:
    """Compile a module of ours against the tree, below it: no path of this machine gets in."""
    inside = make.tree / "ours" / sources.name
    store.remove_tree(inside)
    shutil.copytree(sources, inside)
    make.run("modules", f"M=ours/{sources.name}")


def install_module(make: Make, sources: Path, root: Path) -> None:
    """Install a compiled module of ours."""
    make.run(
        "modules_install", f"M=ours/{sources.name}", f"INSTALL_MOD_PATH={root}",
        f"INSTALL_MOD_DIR={module_folder(sources.name)}", "INSTALL_MOD_STRIP=1",
        "DEPMOD=/bin/true",
    )  # fmt: skip


def _stage_headers(make: Make, headers: Path, scratch: Path) -> None:
    tree = make.tree
    headers.mkdir(parents=True)
    rules = sorted(str(path.relative_to(tree)) for path in _rules(tree))
    whole = ("include/", "scripts/")
    names = [*_FOR_MODULES, *(rule for rule in rules if not rule.startswith(whole))]
    chosen = [name for name in names if (tree / name).exists()]
    listing, archive = scratch / "headers.list", scratch / "headers.tar"
    listing.write_text("\n".join(dict.fromkeys(chosen)) + "\n", encoding="utf-8")
    # Objects and the commands they were made by name this folder and are of no use elsewhere.
    run.run(
        ["tar", "-c", "-f", archive, "--exclude=*.o", "--exclude=.*.cmd", "-T", listing],
        cwd=tree,
        log=make.log,
    )
    run.run(["tar", "-x", "-f", archive, "-C", headers], log=make.log)
    archive.unlink()
    # Debug information names the folder it was compiled in, and the build id is a hash over it.
    programs = [path for path in sorted(headers.rglob("*")) if _is_program(path)]
    if programs:
        run.run(["strip", "--remove-section=.note.gnu.build-id", *programs], log=make.log)


def _is_program(path: Path) -> bool:
    if not path.is_file() or path.is_symlink() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _rules(tree: Path) -> Iterator[Path]:
    """The rules that stay useful without sources: the architecture's, and what Kconfig reads."""
    for folder_name, folders, files in os.walk(tree):
        here = Path(folder_name)
        if here == tree:
            folders[:] = [name for name in folders if name not in ("Documentation", "tools")]
        elif here == tree / "arch":
            folders[:] = ["x86"]
        ours = here.is_relative_to(tree / "arch/x86")
        for name in files:
            if name.startswith("Kconfig") or (ours and name.startswith("Makefile")):
                yield here / name
