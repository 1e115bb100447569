# SPDX-License-Identifier: GPL-2.0-only
"""Targets: the kernel lines we have a series and configurations for.

A target is the folder `kernel-config/NAME` with a `target.toml` and its fragments, and the folder
`patches/NAME` with its series.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fsdeploy import paths
from fsdeploy.errors import FsdeployError

BASES = ("distribution", "defconfig", "allnoconfig")


@dataclass(frozen=True)
class Fragment:
    """A piece of configuration.

    `base` is what it starts from; one without a base is laid over another. `steps` is the number
    of compile steps counted in a build of it, for the estimate of a first build; 0 is unknown.
    `space` is what a build of it takes in the cache, in bytes; 0 is unknown.
    """

    name: str
    path: Path
    base: str = ""
    steps: int = 0
    space: int = 0


@dataclass(frozen=True)
class Target:
    """A kernel line.

    `releases` are fnmatch patterns: on the release of a source whose kernel is from a
    distribution (2.6.32 with release 431.el6), on the version otherwise (6.1.100).
    `source_package` names the Debian package that brings a source in /usr/src.
    `modules` are folders of kernel modules that are built against the patched tree.
    """

    name: str
    title: str
    version: str
    releases: tuple[str, ...]
    revision: int
    fragments: Mapping[str, Fragment]
    patches: Path
    source_package: str = ""
    modules: tuple[Path, ...] = ()

    @property
    def is_distribution(self) -> bool:
        """Whether sources are a distribution's, told apart by their release."""
        return not any(pattern.startswith(self.version) for pattern in self.releases)

    def accepts(self, version: str, release: str) -> bool:
        """Whether a source of this version and release is what the series is for."""
        if "-" in version:
            # A release candidate; a package's version has no hyphen.
            return False
        if not self.is_distribution:
            return any(fnmatchcase(version, pattern) for pattern in self.releases)
        return version == self.version and any(
            fnmatchcase(release, pattern) for pattern in self.releases
        )

    def wanted(self) -> str:
        """What sources the series is for, in words."""
        if not self.is_distribution:
            return " or ".join(self.releases)
        return " or ".join(f"{self.version}-{pattern}" for pattern in self.releases)

    def choose(self, names: Sequence[str]) -> tuple[Fragment, ...]:
        """The fragments by name: the one that starts first, overlays after it in given order.

        A name that ends in `.config` is the path of a file of the user's own, laid over.
        """
        chosen = [self._fragment(name) for name in dict.fromkeys(names)]
        starting = [fragment for fragment in chosen if fragment.base]
        if len(starting) != 1:
            which = " and ".join(fragment.name for fragment in starting)
            bases = ", ".join(f.name for f in self.fragments.values() if f.base)
            raise FsdeployError(
                f"{which} each start a configuration of their own"
                if starting
                else f"nothing for {', '.join(names)} to be laid over",
                hint=f"name exactly one of {bases}",
            )
        return (starting[0], *(fragment for fragment in chosen if not fragment.base))

    def _fragment(self, name: str) -> Fragment:
        if name.endswith(".config"):
            return Fragment(name=Path(name).stem, path=Path(name))
        if name not in self.fragments:
            raise FsdeployError(
                f"{self.name} has no fragment {name}",
                hint=f"it has {', '.join(self.fragments)}; a file of your own ends in .config",
            )
        return self.fragments[name]


def names() -> tuple[str, ...]:
    """The targets there are."""
    return tuple(
        sorted(
            path.parent.name for path in (paths.data_root() / "kernel-config").glob("*/target.toml")
        )
    )


def load(name: str) -> Target:
    """One target by name."""
    known = names()
    if name not in known:
        raise FsdeployError(f"there is no target {name}", hint=f"known: {', '.join(known)}")
    root = paths.data_root()
    return read(root / "kernel-config" / name, root / "patches" / name)


def load_all() -> tuple[Target, ...]:
    """Every target."""
    return tuple(load(name) for name in names())


def read(folder: Path, patches: Path) -> Target:
    """A target from its folder. Raises FsdeployError where target.toml says something unknown."""
    path = folder / "target.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        fragments = {
            name: _fragment(folder, name, table) for name, table in data["fragments"].items()
        }
        return Target(
            name=data["name"],
            title=data["title"],
            version=data["version"],
            releases=tuple(data["releases"]),
            revision=int(data["revision"]),
            fragments=fragments,
            patches=patches,
            source_package=data.get("source_package", ""),
            modules=tuple(paths.data_root() / "modules" / name for name in data.get("modules", ())),
        )
    except FileNotFoundError as problem:
        raise FsdeployError(f"there is no {path}") from problem
    except tomllib.TOMLDecodeError as problem:
        raise FsdeployError(f"{path}: {problem}") from problem
    except KeyError as problem:
        raise FsdeployError(f"{path} lacks {problem.args[0]}") from problem


def _fragment(folder: Path, name: str, table: Mapping[str, Any]) -> Fragment:
    base = table.get("base", "")
    if base and base not in BASES:
        raise FsdeployError(
            f"{folder / 'target.toml'}: fragment {name} has base {base}",
            hint=f"a base is one of {', '.join(BASES)}",
        )
    return Fragment(
        name=name,
        path=folder / f"{name}.config",
        base=base,
        steps=int(table.get("steps", 0)),
        space=int(table.get("space_mb", 0)) * 1024 * 1024,
    )
