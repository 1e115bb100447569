# SPDX-License-Identifier: GPL-2.0-only
"""What a host looks like to the planning of its module and services, as its host module says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsdeploy.errors import FsdeployError

_FORMAT = 1


@dataclass(frozen=True)
class Service:
    """A service that is installed. `file` is what its init script reads, `unit` that it has one."""

    name: str
    unit: bool
    file: str
    runs: str


@dataclass(frozen=True)
class HostView:
    """A host. `rfd` is the switch of a kernel that has Receive Flow Deliver without the module."""

    release: str
    systemd: bool
    sysconfig: bool
    available: bool
    loaded: bool
    parameters: Mapping[str, str]
    rfd: str
    packages: Mapping[str, tuple[str, ...]]
    library: bool
    services: Mapping[str, Service] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def view_from(document: Mapping[str, Any], where: str) -> HostView:
    """From what the host module returned; FsdeployError when that is something else."""
    try:
        if document["format"] != _FORMAT:
            raise FsdeployError(f"{where} has format {document['format']}, not {_FORMAT}")
        return HostView(
            release=str(document["release"]),
            systemd=bool(document["systemd"]),
            sysconfig=bool(document["sysconfig"]),
            available=bool(document["available"]),
            loaded=bool(document["loaded"]),
            parameters=dict(document["parameters"]),
            rfd=str(document["rfd"]),
            packages={name: tuple(items) for name, items in document["packages"].items()},
            library=bool(document["library"]),
            services={
                name: Service(name, bool(item["unit"]), str(item["file"]), str(item["runs"]))
                for name, item in document["services"].items()
            },
            words={name: tuple(lines) for name, lines in document["words"].items()},
        )
    except (AttributeError, KeyError, TypeError) as problem:
        raise FsdeployError(f"{where} is not what a host says of itself: {problem}") from None
