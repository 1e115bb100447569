# SPDX-License-Identifier: GPL-2.0-only
"""The only caller of ansible-playbook.

A playbook runs with our configuration, our ssh_config and a callback of ours that writes one JSON
object a line; what is returned is a result a host, with an unreachable host told apart from one
where a task failed.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsdeploy import paths, run
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Inventory
from fsdeploy.fleet.transport import OLD_SSH_KEYWORDS, Ssh, is_old, reason_of

_PREFIX = "FSDEPLOY "
_FORKS = 20
_TIMEOUT = 3600.0


@dataclass(frozen=True)
class HostResult:
    """How a playbook ended on a host. `data` has each module's last result, by module name."""

    ok: bool
    reached: bool
    message: str = ""
    changed: bool = False
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class _Host:
    ok: bool = True
    reached: bool = True
    message: str = ""
    changed: bool = False
    data: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Events:
    """Collects what the callback writes."""

    def __init__(self, on_task: Callable[[str], None] | None = None) -> None:
        self._hosts: dict[str, _Host] = {}
        self._on_task = on_task
        self.ended = False

    def line(self, line: str) -> None:
        """One line of the playbook's output; what is not ours is left alone."""
        if not line.startswith(_PREFIX):
            return
        try:
            event = json.loads(line[len(_PREFIX) :])
        except ValueError:
            return
        if event["event"] == "task" and self._on_task:
            self._on_task(event["task"])
        elif event["event"] == "end":
            self.ended = True
        elif event["event"] == "result":
            self._result(event)

    def _result(self, event: Mapping[str, Any]) -> None:
        host = self._hosts.setdefault(event["host"], _Host())
        result = event["result"]
        action = str(event["action"]).rsplit(".", 1)[-1]
        if event["status"] in ("ok", "failed", "ignored"):
            host.data[action] = result
        if event["status"] == "unreachable":
            host.reached = host.ok = False
            host.message = message_of(result)
        elif event["status"] == "failed":
            host.ok = False
            # A task that cleans up after a failure does not replace its reason.
            host.message = host.message or message_of(result)
        elif event["status"] == "ok":
            host.changed = host.changed or bool(result.get("changed"))

    def results(self) -> dict[str, HostResult]:
        """The results so far, by host."""
        return {
            name: HostResult(host.ok, host.reached, host.message, host.changed, dict(host.data))
            for name, host in self._hosts.items()
        }


def message_of(result: Mapping[str, Any]) -> str:
    """The sentence in a task's result that says what went wrong."""
    text = str(result.get("msg") or result.get("reason") or "")
    if result.get("url"):
        # What get_url could not fetch, and why: the server's answer, or that there was none.
        text = f"{result['url']}: {result.get('response') or text}"
    said = (result.get(name) for name in ("module_stderr", "module_stdout", "stderr"))
    error = next((str(item).strip() for item in said if item and str(item).strip()), "")
    if error and (not text or text.startswith(("MODULE FAILURE", "non-zero return code"))):
        text = error.splitlines()[-1]
    return " ".join(text.split()) or "a task failed without a message"


def playbook_path(name: str) -> Path:
    """Where a playbook of ours is."""
    return paths.data_root() / "playbooks" / f"{name}.yml"


def playbook_argv(
    name: str, ssh: Ssh, hosts: Sequence[str], variables: Mapping[str, Any], *, check: bool = False
) -> list[str]:
    """The command line of a run. The host's name goes to ssh: our ssh_config says where it is."""
    program = Path(sys.executable).with_name("ansible-playbook")
    everything = {
        "ansible_host": "{{ inventory_hostname }}",
        # An inventory made for other uses may name an ssh_config here; ours includes it.
        "ansible_ssh_common_args": "",
        **variables,
    }
    return [
        str(program) if program.exists() else "ansible-playbook",
        "--inventory",
        str(ssh.inventory.path),
        "--limit",
        ",".join(hosts),
        "--forks",
        str(min(_FORKS, max(1, len(hosts)))),
        "--extra-vars",
        json.dumps(everything, sort_keys=True),
        *(["--check"] if check else []),
        str(playbook_path(name)),
    ]


def by_hand(
    name: str, inventory: Inventory, hosts: Sequence[str], variables: Mapping[str, Any]
) -> str:
    """The command that does the same without fsdeploy, for a person to copy."""
    config = playbook_path(name).with_name("ansible.cfg")
    old = any(is_old(inventory.host(host)) for host in hosts)
    options = " ".join(f"-o {word}={value}" for word, value in OLD_SSH_KEYWORDS)
    words = [
        "ansible-playbook",
        "-i",
        str(inventory.path),
        "--limit",
        ",".join(hosts),
        *(["--ssh-common-args", options] if old else []),
        *(["-e", json.dumps(dict(variables), sort_keys=True)] if variables else []),
        str(playbook_path(name)),
    ]
    return f"ANSIBLE_CONFIG={shlex.quote(str(config))} {shlex.join(words)}"


def run_playbook(
    name: str,
    ssh: Ssh,
    hosts: Sequence[str],
    variables: Mapping[str, Any] | None = None,
    *,
    log: Path,
    check: bool = False,
    on_task: Callable[[str], None] | None = None,
    keep_open: Sequence[int] = (),
) -> dict[str, HostResult]:
    """Run one of our playbooks on hosts.

    `keep_open` are file descriptors that it and its workers hold as long as one of them lives.

    FsdeployError only when Ansible itself could not work; what failed on a host is in its result.
    """
    if not hosts:
        return {}
    events = Events(on_task)
    folder = paths.data_root() / "playbooks"
    outcome = run.run(
        playbook_argv(name, ssh, hosts, variables or {}, check=check),
        env={
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "fsdeploy_events",
            "ANSIBLE_SSH_ARGS": f"-F {ssh.config}",
            "ANSIBLE_LOCAL_TEMP": str(ssh.config.parent / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            # ansible-core wants a UTF-8 locale.
            "LC_ALL": "C.UTF-8",
        },
        log=log,
        check=False,
        timeout=_TIMEOUT,
        on_line=events.line,
        pass_fds=keep_open,
    )
    results = events.results()
    for host, result in results.items():
        if not result.reached:
            results[host] = replace(result, message=ssh.reason(host, result.message))
    if not events.ended or not results:
        tail = " ".join(outcome.output.strip().splitlines()[-3:])
        raise FsdeployError(
            f"ansible-playbook {name}.yml could not run (code {outcome.returncode}): {tail}",
            hint="the log has all it said",
            log=log,
        )
    return results


def run_on_alive(
    name: str,
    ssh: Ssh,
    hosts: Sequence[str],
    variables: Mapping[str, Any] | None = None,
    *,
    log: Path,
    check: bool = False,
) -> dict[str, HostResult]:
    """Run a playbook on the hosts that answer; the others cost Ansible no time."""
    chosen = [ssh.inventory.host(host) for host in hosts]
    answers = ssh.each(chosen, lambda host: ssh.execute(host, "true", timeout=40))
    results = {
        host: HostResult(False, False, reason_of(answer.output))
        for host, answer in answers.items()
        if not answer.reached
    }
    alive = [host for host in hosts if host not in results]
    return {**results, **run_playbook(name, ssh, alive, variables, log=log, check=check)}
