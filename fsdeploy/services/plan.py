# SPDX-License-Identifier: GPL-2.0-only
"""Plans a host's module and services. No host is asked here.

A plan is what the host module brings about: packages, files, the module, its parameters, services.
Each package and file belongs to a level that can be taken back without the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy.services.host import HostView, Service

MODULE = "fastsocket"
SERVICES = ("nginx", "haproxy", "lighttpd")
LIBRARY = "/usr/lib64/libfsocket.so"
RFD = "/sys/module/rfd/parameters/enable_receive_flow_deliver"

_RFD_NAME = "enable_receive_flow_deliver"
# The module's features: what each may be, and what it is unless the workload says otherwise.
PARAMETERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "enable_listen_spawn": (("0", "1", "2"), "2"),
    "enable_local_established": (("0", "1"), "0"),
    _RFD_NAME: (("0", "1"), "0"),
    "enable_fast_epoll": (("0", "1"), "1"),
}

# EL6 reads them from here, so does everything later.
OPTIONS_FILE = "/etc/modprobe.d/fsdeploy-fastsocket.conf"
_MODULES_LOAD = "/etc/modules-load.d/fsdeploy-fastsocket.conf"
_SYSCONFIG = "/etc/sysconfig/modules/fsdeploy-fastsocket.modules"
_ETC_MODULES = "/etc/modules"
_TMPFILES = "/etc/tmpfiles.d/fsdeploy-rfd.conf"
_HEAD = (
    "# SPDX-License-Identifier: GPL-2.0-only\n"
    "# Written by fsdeploy services; fsdeploy rollback --level {level} removes it.\n"
)


class Level(StrEnum):
    """What is taken back together."""

    MODULE = "module"
    SERVICE = "service"


class Workload(StrEnum):
    """What a host's services do."""

    WEB = "web"  # accepts connections
    PROXY = "proxy"  # accepts connections and opens others


@dataclass(frozen=True)
class Package:
    """An RPM on the control machine. `release` is the kernel that a module's package is for.

    `key` is the public key that hosts check its signature with; empty to ask for none.
    """

    path: str
    name: str
    nevra: str
    sha256: str
    release: str = ""
    key: str = ""


@dataclass(frozen=True)
class Choice:
    """What the operator wants."""

    workload: Workload = Workload.WEB
    parameters: Mapping[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    module: Package | None = None
    library: Package | None = None


@dataclass(frozen=True)
class Plan:
    """What a host gets. `notes` say what it does not get, `proposals` what a person should edit."""

    packages: tuple[tuple[Level, Package], ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()
    module: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    proposals: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the host module."""
        return {
            "packages": [
                {
                    "level": str(level),
                    "name": package.name,
                    "nevra": package.nevra,
                    "file": package.path,
                    "sha256": package.sha256,
                    "key": package.key,
                    "beside": level is Level.MODULE,
                }
                for level, package in self.packages
            ],
            "files": [dict(item) for item in self.files],
            "module": self.module,
            "values": [
                {"kind": "value", "target": target, "value": value}
                for target, value in self.values.items()
            ],
            "services": dict(self.services),
        }


def parse_parameters(words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words; FsdeployError for one that the module does not have."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        allowed, _ = PARAMETERS.get(name, ((), ""))
        if value not in allowed:
            known = ", ".join(
                f"{key}={'|'.join(values)}" for key, (values, _) in PARAMETERS.items()
            )
            raise FsdeployError(f"--parameter {word}: there is no such setting", hint=known)
        found[name] = value
    return found


def parameters_for(choice: Choice) -> dict[str, str]:
    """Every feature's parameter and its value."""
    values = {name: usual for name, (_, usual) in PARAMETERS.items()}
    if choice.workload is Workload.PROXY:
        values[_RFD_NAME] = "1"
    return {**values, **choice.parameters}


def plan_services(host: HostView, choice: Choice) -> Plan:
    """The plan for a host; FsdeployError with what is missing when there can be none."""
    if host.loaded or host.available or choice.module:
        if host.rfd and not (host.loaded or host.available):
            # A fleet may have both kernels; the package is for the others.
            return _without_module(host, choice)
        return _with_module(host, choice)
    if host.rfd:
        return _without_module(host, choice)
    raise FsdeployError(
        f"{host.release} has no Fastsocket module",
        hint="--module-rpm KMOD.rpm for a patched kernel; fsdeploy rollout brings such a kernel",
    )


def _without_module(host: HostView, choice: Choice) -> Plan:
    """Receive Flow Deliver alone, a switch of the kernel itself."""
    value = parameters_for(choice)[_RFD_NAME]
    files: tuple[Mapping[str, Any], ...] = ()
    said = (
        f"{host.release} has Receive Flow Deliver and no Fastsocket module: that switch is all"
        " that is set, and no service is started under libfsocket"
    )
    notes = [said]
    if host.systemd:
        files = (_whole(Level.MODULE, _TMPFILES, f"w {RFD} - - - - {value}\n"),)
    elif host.sysconfig:
        text = f"[ ! -w {RFD} ] || echo {value} >{RFD}\n"
        files = (_script(Level.MODULE, _SYSCONFIG, text),)
    else:
        notes.append("nothing on this host sets it again at the next boot")
    return Plan(files=files, values={RFD: value}, notes=tuple(notes))


def _with_module(host: HostView, choice: Choice) -> Plan:
    packages: list[tuple[Level, Package]] = []
    if choice.module and choice.module.nevra not in host.packages.get(choice.module.name, ()):
        if choice.module.release != host.release:
            raise FsdeployError(
                f"{choice.module.nevra} is for {choice.module.release}, the host runs"
                f" {host.release}"
            )
        packages.append((Level.MODULE, choice.module))
    values = parameters_for(choice)
    files = [
        _whole(
            Level.MODULE,
            OPTIONS_FILE,
            f"options {MODULE} " + " ".join(f"{name}={value}" for name, value in values.items()),
        ),
        _loader(host),
    ]
    services, service_files, notes = _preloads(host, choice)
    if services:
        packages += _library(host, choice)
    return Plan(
        packages=tuple(packages),
        files=(*files, *service_files),
        module=MODULE,
        values={f"/sys/module/{MODULE}/parameters/{name}": values[name] for name in values},
        services=services,
        notes=notes,
        proposals=_proposals(host, services),
    )


def _library(host: HostView, choice: Choice) -> list[tuple[Level, Package]]:
    if choice.library:
        there = choice.library.nevra in host.packages.get(choice.library.name, ())
        return [] if there else [(Level.SERVICE, choice.library)]
    if not host.library:
        raise FsdeployError(
            f"{LIBRARY} is not on the host", hint="--library LIBFSOCKET.rpm installs it"
        )
    return []


def _whole(level: Level, path: str, text: str) -> dict[str, Any]:
    body = _HEAD.format(level=level) + text.rstrip("\n") + "\n"
    return {"level": str(level), "path": path, "text": body, "mode": 0o644}


def _script(level: Level, path: str, text: str) -> dict[str, Any]:
    body = f"#!/bin/sh\n{_HEAD.format(level=level)}{text}"
    return {"level": str(level), "path": path, "text": body, "mode": 0o755}


def _lines(level: Level, path: str, *lines: str) -> dict[str, Any]:
    return {"level": str(level), "path": path, "lines": list(lines)}


def _loader(host: HostView) -> dict[str, Any]:
    """What loads the module at boot, the host's way. Another kernel, without it, boots as ever."""
    if host.systemd:
        return _whole(Level.MODULE, _MODULES_LOAD, MODULE)
    if host.sysconfig:
        text = f"/sbin/modprobe -q {MODULE} >/dev/null 2>&1 || :\n"
        return _script(Level.MODULE, _SYSCONFIG, text)
    return _lines(Level.MODULE, _ETC_MODULES, MODULE)


def _preloads(
    host: HostView, choice: Choice
) -> tuple[dict[str, str], list[dict[str, Any]], tuple[str, ...]]:
    """Services with the file that starts each under the library, those files, and notes."""
    services: dict[str, str] = {}
    files, notes = [], []
    for name in choice.services or tuple(host.services):
        service = host.services.get(name)
        if service is None:
            raise FsdeployError(f"{name} is not installed on the host")
        item = _drop_in(host, service)
        if item is None:
            notes.append(
                f"/etc/init.d/{name} reads no file of its own in /etc/sysconfig or /etc/default:"
                f" start {name} by fsocket-run there"
            )
            continue
        services[name] = item["path"]
        files.append(item)
    if not host.services:
        notes.append(f"none of {', '.join(SERVICES)} is installed: no service uses the module")
    return services, files, tuple(notes)


def _drop_in(host: HostView, service: Service) -> dict[str, Any] | None:
    if host.systemd:
        return _whole(
            Level.SERVICE,
            f"/etc/systemd/system/{service.name}.service.d/50-fsdeploy.conf",
            f"[Service]\nEnvironment=LD_PRELOAD={LIBRARY}",
        )
    if not service.file:
        return None
    # Without the library the service starts as ever, and ld.so has nothing to complain about.
    preload = f'[ ! -r {LIBRARY} ] || export LD_PRELOAD="{LIBRARY}${{LD_PRELOAD:+:$LD_PRELOAD}}"'
    return _lines(Level.SERVICE, service.file, preload)


def _proposals(host: HostView, services: Mapping[str, str]) -> tuple[str, ...]:
    """What only a person edits: the configuration of the services themselves."""
    found = []
    nginx = " ".join(host.words.get("nginx", ()))
    if "nginx" in services:
        if not re.search(r"accept_mutex\s+off\s*;", nginx):
            found.append(
                "nginx.conf: accept_mutex off; in events (before 1.11.3 it is on unless it is set):"
                " with it on, connections go through the queue of all cores"
            )
        if not re.search(r"env\s+LD_PRELOAD\s*[;=]", nginx):
            found.append(
                "nginx.conf: env LD_PRELOAD; at its top, or a new binary (USR2) runs without the"
                " library"
            )
    if "haproxy" in services and not host.words.get("haproxy"):
        found.append(
            "haproxy.cfg: noreuseport in global, where its version has it: listeners with"
            " SO_REUSEPORT get no table a core"
        )
    return tuple(found)
