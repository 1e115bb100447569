# SPDX-License-Identifier: GPL-2.0-only
"""`rollback --level service` and `--level module`: taken back, then verified.

By the host module where the host's Python works, else over plain SSH with nothing but a shell,
coreutils and, for packages of ours, rpm. See takeback.py.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.fleet import plainly, rollback
from fsdeploy.fleet.ansible import HostResult, run_on_alive
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.rollback import RollbackReport, RollbackRequest
from fsdeploy.fleet.services import Item, forget_applied, items_of
from fsdeploy.fleet.takeback import Back, Record, Tried, take_back
from fsdeploy.fleet.transport import Ssh
from fsdeploy.services.plan import MODULE, Level
from fsdeploy.tuning.settings import Outcome
from fsdeploy.verify.report import Expectation

# What stays and why, in what a script says.
_STAYS = "stays: "

_SCRIPT_HEAD = f"""\
{plainly.SCRIPT_HEAD}
stays=0
stay() {{
	echo "{_STAYS}$1"
	stays=1
}}
# named NAME: whether a process has it; mapped NAME: whether one has the library mapped.
named() {{
	for d in /proc/[0-9]*; do
		read -r _ n 2>/dev/null <$d/status && [ "$n" = "$1" ] && return 0
	done
	return 1
}}
mapped() {{
	for d in /proc/[0-9]*; do
		read -r _ n 2>/dev/null <$d/status && [ "$n" = "$1" ] &&
			grep -q /libfsocket.so $d/maps 2>/dev/null && return 0
	done
	return 1
}}
users() {{
	for d in /proc/[0-9]*; do
		grep -q /libfsocket.so $d/maps 2>/dev/null || ls -l $d/fd 2>/dev/null |
			grep -q ' /dev/fastsocket$' || continue
		read -r _ n 2>/dev/null <$d/status && echo "$n (${{d#/proc/}})"
	done | head -n 4 | tr '\\n' ' '
}}
plain() {{
	mapped "$1" || return 0
	if [ -d /run/systemd/system ]; then
		systemctl restart "$1"
	else
		env -i PATH="$PATH" TERM=dumb "/etc/init.d/$1" restart
	fi </dev/null >/dev/null 2>&1
	tries=0
	while mapped "$1" || ! named "$1"; do
		tries=$((tries + 1))
		if [ $tries -gt 100 ]; then
			echo "$1 was restarted and does not run without libfsocket"
			bad=1
			return
		fi
		sleep 0.2
	done
}}
# package NAME-VERSION-RELEASE.ARCH
package() {{
	rpm -q "$1" >/dev/null 2>&1 || return 0
	rpm -e "$1" >/dev/null 2>&1 || stay "$1, rpm does not remove it"
}}"""


def _off(module: str) -> str:
    """A loop that switches off what the module does."""
    return (
        f"for p in /sys/module/{module}/parameters/enable_*; do"
        ' case "$p" in *_debug) ;; *) echo 0 >"$p" ;; esac; done 2>/dev/null'
    )


def restore_script(
    level: Level, record: Mapping[str, Any], shared: Mapping[str, bytes | None]
) -> str:
    """A shell script that takes a level back.

    It names what is otherwise and ends with 1; what may stay is named behind `stays: `.
    `shared` has the present contents of files of others.
    """
    before = f"{plainly.STATE}/{level}/before.json"
    lines = [_SCRIPT_HEAD]
    lines += [
        f"value {shlex.join([setting['target'], setting['value']])}"
        for setting in plainly.settings_before(record)
    ]
    for path, known in sorted(record["files"].items()):
        lines += plainly.file_lines(path, known, shared, str(level))
    lines.append("[ ! -d /run/systemd/system ] || systemctl daemon-reload")
    lines += [f"plain {shlex.quote(name)}" for name in sorted(record.get("services", {}))]
    if record.get("loaded") is False:
        module = shlex.quote(record["module"])
        lines += [
            f"[ ! -d /sys/module/{module} ] || rmmod {module} 2>/dev/null",
            f"if [ -d /sys/module/{module} ]; then",
            f'stay "{module}, in use by $(users); its features are off, it goes with a boot"',
            _off(module),
            "fi",
        ]
    lines += _package_lines(record)
    # What could not be put back stays remembered, and so does what may be tried again.
    lines += ["[ $bad = 0 ] || exit 1", "if [ $stays = 1 ]; then"]
    left = {**record, "values": {}, "files": {}, "shared": [], "services": {}}
    text = base64.b64encode((json.dumps(left, sort_keys=True, indent=1) + "\n").encode())
    lines += [f"content {shlex.join([before, '600', text.decode('ascii')])}", "sync", "exit 0"]
    lines += ["fi", *plainly.forget_lines(record, before), "sync", "exit 0", ""]
    return "\n".join(lines)


def _package_lines(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for nevra, known in sorted(record.get("packages", {}).items()):
        word = shlex.quote(nevra)
        if known["replaced"]:
            # Told, and not tried again: there is nothing to do it with.
            old = " ".join(known["replaced"])
            lines.append(f"echo {shlex.quote(f'{_STAYS}{nevra}, {old} before it is not at hand')}")
        elif known["name"] == "libfsocket":
            lines.append(f'[ -z "$(users)" ] && package {word} || stay "{nevra}, in use"')
        else:
            lines.append(f"[ $stays = 1 ] || package {word}")
    return lines


def _reason(what: Sequence[str], stays: Sequence[str]) -> str:
    return "; ".join([*what, *(f"stays: {word}" for word in stays)])


@dataclass(frozen=True)
class _Services:
    """The levels `service` and `module`, for takeback.py."""

    level: Level

    @property
    def record(self) -> str:
        return f"{plainly.STATE}/{self.level}/before.json"

    @property
    def nothing(self) -> str:
        if self.level is Level.SERVICE:
            return "no service was put under libfsocket, nothing changed"
        return "no module was put there, nothing changed"

    @property
    def checks(self) -> tuple[str, ...]:
        if self.level is Level.SERVICE:
            return ("services_taken_back", "services_still_run")
        return ("module_parameters", "module_not_kept", "module_unloaded")

    def would(self, record: Record) -> str:
        names = list(record.get("services", {}))
        words = [f"restart {', '.join(names)} without libfsocket"] if names else []
        if record["values"]:
            many = len(record["values"])
            words.append(f"put {many} parameter{'s' if many != 1 else ''} back")
        if record.get("loaded") is False:
            words.append(f"unload {record['module']}")
        words += [f"put {path} back" for path in record["files"]]
        words += [f"remove {nevra}" for nevra in record.get("packages", {})]
        return "would " + ", ".join(words)

    def forget(self, host: str) -> None:
        forget_applied(host, self.level)

    def with_ansible(
        self, ssh: Ssh, records: Mapping[str, Record], log: Path
    ) -> Mapping[str, Tried]:
        with ui.step(f"Taking back the level {self.level}"):
            results = run_on_alive(
                "services_restore", ssh, list(records), {"services_level": str(self.level)}, log=log
            )
        tried = {}
        for name, record in records.items():
            result = results.get(name, HostResult(False, False, "no answer"))
            items = items_of(result)
            back = self._back(record, _running(items), _stays(items)) if result.ok else None
            # With items the module worked, and what it says is the host's last word.
            tried[name] = Tried(back, result.message, bool(items))
        return tried

    def plainly(self, ssh: Ssh, host: Host, record: Record) -> Back:
        shared = plainly.read_shared(ssh, host, record.get("shared", ()))
        said = plainly.run_script(ssh, host, restore_script(self.level, record, shared))
        stays = [line.removeprefix(_STAYS) for line in said if line.startswith(_STAYS)]
        return self._back(record, (), stays)

    def _back(self, record: Record, running: Sequence[str], stays: Sequence[str]) -> Back:
        names = list(record.get("services", {}))
        if self.level is Level.SERVICE:
            wanted: dict[str, Any] = {"plain": names, "running": list(running)}
            what = f"{', '.join(names) or 'no service'} without libfsocket, files as before"
            return Back(Expectation(services=wanted), _reason([what], stays))
        shared = record.get("shared", ())
        gone = [path for path, known in record["files"].items() if not known]
        wanted = {
            "values": {
                setting["target"]: setting["value"] for setting in plainly.settings_before(record)
            },
            "gone": [path for path in gone if path not in shared],
        }
        what = "parameters and files as before"
        if record.get("loaded") is False:
            wanted["unloaded"] = record["module"]
            if not any(word.startswith(MODULE) for word in stays):
                what += f", {record['module']} unloaded"
        return Back(Expectation(services=wanted), _reason([what], stays))


def _running(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(
        item.target for item in items if item.kind == "service" and item.before != "not running"
    )


def _stays(items: Sequence[Item]) -> list[str]:
    return [
        f"{item.before if item.kind == 'package' else item.target}, {item.reason}"
        for item in items
        if item.kind in ("module", "package") and item.outcome is Outcome.CANNOT
    ]


def rollback_services(
    request: RollbackRequest, level: rollback.Level, *, journal: Journal | None = None
) -> RollbackReport:
    """Take a level back on hosts. What happens is in the report."""
    return take_back(request, _Services(Level(str(level))), journal=journal)
