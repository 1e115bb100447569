# SPDX-License-Identifier: GPL-2.0-only
"""Reads an Ansible YAML inventory: which hosts there are and how SSH reaches them.

The same file goes to ansible-playbook unchanged; what is read here is only what the other parts
need. Host ranges (`web[01:20]`) are expanded the way Ansible does.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fsdeploy.errors import FsdeployError

# Name of the inventory variable that holds the path of an ssh_config.
SSH_CONFIG_VARIABLE = "fsdeploy_ssh_config"

# The safe loader in C: ten thousand hosts in a second instead of ten.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_RANGE = re.compile(r"\[(\d+):(\d+)\]")


@dataclass(frozen=True)
class Host:
    """One managed host. `name` is what SSH is given; the ssh_config says where that is."""

    name: str
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The address to connect to: `ansible_host`, or the name itself."""
        return str(self.variables.get("ansible_host", self.name))


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order of the file."""

    path: Path
    hosts: tuple[Host, ...]
    ssh_config: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all hosts, in order."""
        return tuple(host.name for host in self.hosts)

    @cached_property
    def _by_name(self) -> Mapping[str, Host]:
        return {host.name: host for host in self.hosts}

    def host(self, name: str) -> Host:
        """The host of that name; FsdeployError naming the nearest when there is none."""
        if name in self._by_name:
            return self._by_name[name]
        raise _unknown(name, self)

    def limited(self, limit: Sequence[str]) -> Inventory:
        """Only the hosts that `limit` names (names or patterns, commas allowed); all when empty.

        A word that begins with `!` leaves its hosts out.
        """
        words = [word.strip() for text in limit for word in text.split(",") if word.strip()]
        if not words:
            return self
        chosen: set[str] = set()
        left_out: set[str] = set()
        for word in words:
            matched = fnmatch.filter(self.names, word.removeprefix("!"))
            if not matched:
                raise _unknown(word.removeprefix("!"), self)
            (left_out if word.startswith("!") else chosen).update(matched)
        # Nothing but exclusions: of all hosts.
        chosen = (chosen or set(self.names)) - left_out
        if not chosen:
            raise FsdeployError(f"{self.path}: {', '.join(words)} leaves no host")
        hosts = tuple(host for host in self.hosts if host.name in chosen)
        return Inventory(self.path, hosts, self.ssh_config)


def _unknown(name: str, inventory: Inventory) -> FsdeployError:
    near = difflib.get_close_matches(name, inventory.names, n=1)
    few = ", ".join(inventory.names[:5]) + (", …" if len(inventory.names) > 5 else "")
    return FsdeployError(
        f"{inventory.path} has no host {name!r}",
        hint=f"did you mean {near[0]}?" if near else f"it has: {few}",
    )


def _expand(name: str) -> list[str]:
    match = _RANGE.search(name)
    if not match:
        return [name]
    first, last = match.groups()
    width = len(first) if first.startswith("0") else 0
    head, tail = name[: match.start()], name[match.end() :]
    return [
        f"{head}{number:0{width}d}{rest}"
        for number in range(int(first), int(last) + 1)
        for rest in _expand(tail)
    ]


def _mapping(value: object, where: str, path: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FsdeployError(
            f"{path}: {where} is a {type(value).__name__}, a mapping was expected",
            hint="see playbooks/inventory/example.yml for the form",
        )
    return {str(key): item for key, item in value.items()}


def _collect(
    group: str,
    body: object,
    inherited: Mapping[str, Any],
    path: Path,
    found: dict[str, dict[str, Any]],
) -> None:
    """Walk one group and its children; a host met again keeps its place and gains variables."""
    fields = _mapping(body, f"group {group!r}", path)
    odd = sorted(set(fields) - {"hosts", "children", "vars"})
    if odd:
        raise FsdeployError(
            f"{path}: group {group!r} has an unknown key {odd[0]!r}",
            hint="a group has hosts, children and vars",
        )
    variables = {**inherited, **_mapping(fields.get("vars"), f"vars of {group!r}", path)}
    for name, own in _mapping(fields.get("hosts"), f"hosts of {group!r}", path).items():
        for expanded in _expand(name):
            known = found.setdefault(expanded, {})
            known.update(variables)
            known.update(_mapping(own, f"host {expanded!r}", path))
    for child, inner in _mapping(fields.get("children"), f"children of {group!r}", path).items():
        _collect(child, inner, variables, path, found)


def parse_inventory(text: str, path: Path) -> Inventory:
    """Parse the text of an inventory.

    FsdeployError when it is not YAML, not an inventory, has no host, or its hosts disagree about
    the ssh_config.
    """
    try:
        document = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise FsdeployError(
            f"{path}{place}: not YAML: {getattr(problem, 'problem', None) or problem}",
            hint="an INI inventory can be converted: ansible-inventory -i FILE --list --yaml",
        ) from None
    if not isinstance(document, dict):
        raise FsdeployError(
            f"{path} is not an Ansible YAML inventory: no group at its top",
            hint="see playbooks/inventory/example.yml for the form",
        )
    found: dict[str, dict[str, Any]] = {}
    for group, body in document.items():
        _collect(str(group), body, {}, path, found)
    if not found:
        raise FsdeployError(f"{path} names no host", hint="add hosts under fleet: hosts:")
    hosts = tuple(Host(name, variables) for name, variables in found.items())
    configs = {str(host.variables.get(SSH_CONFIG_VARIABLE, "")) for host in hosts}
    if len(configs) > 1:
        raise FsdeployError(
            f"{path}: {SSH_CONFIG_VARIABLE} differs between hosts",
            hint="set it once, under vars of the group fleet",
        )
    name = configs.pop()
    config = (path.parent / Path(name).expanduser()).resolve() if name else None
    if config and not config.is_file():
        raise FsdeployError(
            f"{path}: {SSH_CONFIG_VARIABLE} names {config}, which is not there",
            hint="for the lab: fsdeploy lab up writes it",
        )
    return Inventory(path, hosts, config)


def load_inventory(path: Path) -> Inventory:
    """Read an inventory file; see `parse_inventory` for the errors."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FsdeployError(
            f"there is no inventory {path}",
            hint="see playbooks/inventory/example.yml; `fsdeploy lab up` writes one for the lab",
        ) from None
    except (IsADirectoryError, PermissionError) as problem:
        raise FsdeployError(f"cannot read the inventory {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise FsdeployError(f"the inventory {path} is not a text file") from None
    return parse_inventory(text, path.resolve())
