# SPDX-License-Identifier: GPL-2.0-only
"""RPM packages from a staged root, through a spec template and rpmbuild.

The packages install with rpm 4.8: gzip payload, sha256 file digests, no feature of a later rpm.
The same root and values give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store

# What rpm 4.8 knows of rpmlib() features; a package that requires another one does not install.
RPM_4_8_FEATURES = frozenset(
    {
        "rpmlib(BuiltinLuaScripts)",
        "rpmlib(CompressedFileNames)",
        "rpmlib(FileDigests)",
        "rpmlib(PayloadFilesHavePrefix)",
        "rpmlib(PartialHardlinkSets)",
        "rpmlib(PayloadIsXz)",
        "rpmlib(ScriptletInterpreterArgs)",
        "rpmlib(VersionedDependencies)",
    }
)

_TEMPLATES = Path(__file__).parent / "templates"


def template_digest(name: str) -> str:
    """sha256 of a template, for a build's identity."""
    return hashlib.sha256((_TEMPLATES / name).read_bytes()).hexdigest()


def render(name: str, values: Mapping[str, Any]) -> str:
    """A spec from its template. A value the template wants and does not get is an error.

    Specs are full of braces and percent signs: the template's own marks are `<% %>` and `<< >>`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A spec is not a web page.
        autoescape=False,
    )
    try:
        return environment.get_template(name).render(values)
    except jinja2.UndefinedError as problem:
        raise FsdeployError(f"spec template {name}: {problem}") from problem


def build(spec: str, root: Path, work: Path, epoch: int, log: Path) -> tuple[Path, ...]:
    """Build the packages of a spec whose %install copies `root`; returns the RPM files.

    `work` is a scratch folder on the file system of `root`; `epoch` the time that build time and
    file times are clamped to.
    """
    run.require("rpmbuild")
    store.remove_tree(work)
    work.mkdir(parents=True)
    path = work / "package.spec"
    store.write_atomically(path, spec)
    run.run(
        ["rpmbuild", "-bb", "--target", "x86_64-linux",
         "--define", f"_topdir {work}",
         "--define", f"_rpmdir {work}/RPMS",
         "--define", f"_tmppath {work}",
         "--define", f"staged_root {root}",
         "--define", "_buildhost fsdeploy",
         path],
        cwd=work,
        env={"SOURCE_DATE_EPOCH": str(epoch)},
        log=log,
    )  # fmt: skip
    packages = tuple(sorted((work / "RPMS").rglob("*.rpm")))
    foreign = {
        feature
        for package in packages
        for feature in rpmlib_features(package)
        if feature not in RPM_4_8_FEATURES
    }
    if foreign:
        raise FsdeployError(
            f"the packages would need {', '.join(sorted(foreign))}, which rpm 4.8 does not have",
            log=log,
        )
    return packages


def rpmlib_features(package: Path) -> tuple[str, ...]:
    """The features of rpm itself that a package requires."""
    words = run.run(["rpm", "-qp", "--nosignature", "--requires", package]).output.split("\n")
    return tuple(word.partition(" ")[0] for word in words if word.startswith("rpmlib("))
