# SPDX-License-Identifier: GPL-2.0-only
"""The manifest: what went into a build and what came out. `manifest.json` in the build's folder.

Beside copies of the packages it is called after the first of them: several builds may share a
folder. A copy without durations and packages is inside the kernel's package: the package is then
the same for the same inputs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store
from fsdeploy.kernel.identify import file_digest

FORMAT = 1


class BadManifest(Exception):
    """A manifest that is half written, from another time, or not one."""


@dataclass(frozen=True)
class Manifest:
    """See the fields. Digests are sha256 in hex, durations seconds."""

    build_id: str
    release: str  # uname -r
    target: str
    stock: bool
    source: Mapping[str, str]  # name, kind, origin, sha256
    patches: tuple[Mapping[str, str], ...]  # name, sha256; in order
    configuration: Mapping[str, Any]  # base, fragments (name, sha256), sha256 of the .config
    tools: Mapping[str, str]  # tool to the first line of its --version
    kabi: Mapping[str, Any]  # state: same | reference | not applicable; see kabi.Result
    durations: Mapping[str, float]
    outputs: Mapping[str, Mapping[str, Any]]  # path in the build's folder to sha256, bytes
    format: int = FORMAT

    def packaged(self) -> Manifest:
        """The copy for the inside of the package."""
        return replace(self, durations={})

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def load(path: Path) -> Manifest:
    """Read a manifest. Raises BadManifest for anything but a whole one of this format."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadManifest(f"{path}: {problem}") from problem
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadManifest(f"{path}: not a manifest of format {FORMAT}")
    kinds: dict[str, type] = {
        "build_id": str, "release": str, "target": str, "stock": bool, "source": dict,
        "patches": list, "configuration": dict, "tools": dict, "kabi": dict, "durations": dict,
        "outputs": dict, "format": int,
    }  # fmt: skip
    names = {item.name for item in fields(Manifest)}
    if set(data) != names or any(not isinstance(data[name], kinds[name]) for name in names):
        raise BadManifest(f"{path}: not the fields of a manifest")
    return Manifest(**{**data, "patches": tuple(data["patches"])})


def describe_file(path: Path) -> dict[str, Any]:
    """Digest and size of an output."""
    return {"sha256": file_digest(path), "bytes": path.stat().st_size}


def save(manifest: Manifest, path: Path) -> None:
    """Write it whole or not at all."""
    store.write_atomically(path, manifest.dump())


def name_beside(package: str) -> str:
    """What the manifest is called beside a build's packages, `package` being the first."""
    return f"{package.removesuffix('.rpm')}.manifest.json"


def copy_out(packages: Sequence[Path], manifest: Path, folder: Path) -> list[Path]:
    """Copy a build's packages and its manifest to a folder; the copies, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    # First, so that a package of which only a part was copied is known as one.
    beside = Path(shutil.copy2(manifest, folder / name_beside(packages[0].name)))
    return [*(Path(shutil.copy2(package, folder)) for package in packages), beside]


def recorded_sha256(path: Path) -> set[str]:
    """The checksums that manifests beside a package have for it: none, or one as a rule."""
    recorded = set()
    for manifest in path.parent.glob("*manifest.json"):
        try:
            outputs = json.loads(manifest.read_text(encoding="utf-8"))["outputs"]
            recorded.add(str(outputs[path.name]["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it says nothing about this package
    return recorded


def require_as_built(path: Path) -> str:
    """The checksum of a package. FsdeployError when a manifest beside it has another."""
    sha256 = file_digest(path)
    recorded = recorded_sha256(path)
    if recorded and sha256 not in recorded:
        raise FsdeployError(
            f"{path} is not what was built: its sha256 is {sha256}, the manifest beside it says"
            f" {' or '.join(sorted(recorded))}",
            hint="copy the file and its manifest again, or build it again",
        )
    return sha256
