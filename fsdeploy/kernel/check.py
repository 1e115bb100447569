# SPDX-License-Identifier: GPL-2.0-only
"""Checking a series against a source: each prefix applies, and compiles."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fsdeploy import paths, ui
from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.kernel import config, series, store
from fsdeploy.kernel.make import Make
from fsdeploy.kernel.series import FEATURES, Series
from fsdeploy.kernel.source import Source, require_intact
from fsdeploy.kernel.target import Target


def check_series(
    target: Target, source: Source, patches: Series, fragment: str = "", jobs: int = 0
) -> None:
    """Apply patch by patch to one tree; with `fragment` compile after each.

    Only prefixes that hold the whole toolchain section are compiled: what is before need not build
    with the compilers of today. The compiles are incremental, in one tree.
    """
    problems = series.lint(patches)
    if problems:
        raise CheckFailed("\n".join(problems), hint="`fsdeploy series lint` says this too")
    require_intact(source)
    folder = paths.cache_dir() / "builds"
    folder.mkdir(parents=True, exist_ok=True)
    log = paths.log_dir() / f"series-check-{target.name}.log"
    log.unlink(missing_ok=True)
    with (
        store.full_disk_named(folder, "checking the series"),
        tempfile.TemporaryDirectory(prefix="series-check-", dir=folder) as scratch,
    ):
        tree = Path(scratch) / "tree"
        series.clone_tree(source.tree, tree)
        make = Make(tree, source.epoch, log, jobs)
        pieces = target.choose([fragment]) if fragment else ()
        toolchain = len(patches.part(stock=True))
        if fragment and toolchain == 0:
            _compile(source, pieces, make, "the source itself")
        for number, patch in enumerate(patches.patches, 1):
            series.apply_one(patch, tree, where=source.name, log=log)
            if fragment and (patch.section == FEATURES or number == toolchain):
                _compile(source, pieces, make, patch.name)


def _compile(source: Source, pieces: config.Fragments, make: Make, name: str) -> None:
    with ui.step(f"Compile as far as {name}"):
        try:
            options = config.make(source, pieces, make)
            modules = ["modules"] if options.get("CONFIG_MODULES") == "y" else []
            make.run("bzImage", *modules)
        except FsdeployError as problem:
            if store.says_full(problem):
                raise
            raise CheckFailed(
                f"the series does not compile as far as {name}: {problem.message}",
                hint="every prefix of the series builds",
                log=problem.log,
            ) from problem
