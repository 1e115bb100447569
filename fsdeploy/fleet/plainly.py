# SPDX-License-Identifier: GPL-2.0-only
"""What hosts remember of the time before, put back with nothing but a shell and coreutils.

The record that a host keeps (module_utils/fsdeploy_files.py) is read here, and what to write is
computed here: the host needs no Python.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.transport import Ssh

# Everything that fsdeploy keeps on a host.
STATE = "/var/lib/fsdeploy"

# What is left of a file of others that held nothing but our lines.
_EMPTY = (b"", b"#!/bin/sh\n")

# A script says what it could not put back, a line each, and remembers it in `bad`.
SCRIPT_HEAD = """\
PATH=/sbin:/usr/sbin:/bin:/usr/bin
bad=0
# A target that is not there now has nothing to be put back.
value() {
	[ -e "$1" ] || return 0
	printf '%s\\n' "$2" 2>/dev/null >"$1" && return 0
	echo "$1 could not be put back to $2"
	bad=1
}
content() {
	f=$(readlink -f "$1" || echo "$1")
	echo "$3" | base64 -d >"$f.new" && chmod "$2" "$f.new" && mv -f "$f.new" "$f" && return 0
	echo "$1 could not be put back"
	bad=1
}"""


def without_block(data: bytes, name: str) -> bytes:
    """A file's content without the lines of that name, as Block.without on the host's side."""
    words = re.escape(name.encode("ascii"))
    block = re.compile(
        rb"(?P<newline>\n)?# fsdeploy " + words + rb": begin[^\n]*\n"
        rb"(?P<bare># \(the line before had no end\)\n)?.*?# fsdeploy " + words + rb": end\n",
        re.DOTALL,
    )

    def head(match: re.Match[bytes]) -> bytes:
        # The line break before our lines is ours where the file had none.
        return b"" if match["bare"] else match["newline"] or b""

    return block.sub(head, data)


def parse_record(text: str, where: str) -> dict[str, Any]:
    """What a host remembers of the time before; FsdeployError when it is damaged."""
    try:
        record: dict[str, Any] = json.loads(text)
        _ = record["values"].items(), record["files"].items(), list(record["folders"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FsdeployError(f"{where} is damaged; look at it and remove it") from None
    return record


def read_record(ssh: Ssh, host: Host, path: str) -> dict[str, Any] | None:
    """What a host remembers; None when nothing was applied. Unreachable when it is silent."""
    text = ssh.require(host, f"if [ -e {path} ]; then cat {path}; else echo -; fi")
    return None if text.strip() == "-" else parse_record(text, f"{path} on {host.name}")


def read_shared(ssh: Ssh, host: Host, paths: Iterable[str]) -> dict[str, bytes | None]:
    """The present contents of files of others that have lines of ours."""
    found: dict[str, bytes | None] = {}
    for path in paths:
        word = shlex.quote(path)
        text = ssh.require(host, f"if [ -e {word} ]; then base64 {word}; else echo -; fi")
        found[path] = None if text.strip() == "-" else base64.b64decode(text)
    return found


def settings_before(record: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """The remembered values as settings, for the checks."""
    found = []
    for key, value in record["values"].items():
        kind, _, target = key.partition(" ")
        found.append({"kind": kind, "target": target, "value": value})
    return tuple(found)


def file_lines(
    path: str, before: Mapping[str, Any], shared: Mapping[str, bytes | None], name: str
) -> list[str]:
    """Lines of a script that put a file back. `name` is that of our lines in files of others."""
    word = shlex.quote(path)
    now = shared.get(path)
    if "link" in before and now is None:
        return [f"ln -sfn {shlex.quote(before['link'])} {word}"]
    wanted = base64.b64decode(before["content"]) if "content" in before else None
    if now is not None and without_block(now, name) not in (wanted, *_EMPTY):
        # Others have changed it since: only our lines are taken out.
        wanted = without_block(now, name)
    if wanted is None:
        return [f"rm -f {word}"]
    mode = f"{before['mode']:o}" if "mode" in before else f"--reference={path}"
    return [f"content {shlex.join([path, mode, base64.b64encode(wanted).decode('ascii')])}"]


def forget_lines(record: Mapping[str, Any], *paths: str) -> list[str]:
    """Lines of a script that remove what was kept on the host, and folders with nothing in them."""
    folders = [*reversed(record["folders"]), f"{STATE}/packages", STATE]
    return [
        "rm -f " + shlex.join(paths),
        *(f"rmdir {shlex.quote(name)} 2>/dev/null" for name in folders),
    ]


def run_script(ssh: Ssh, host: Host, script: str) -> list[str]:
    """The lines that a script said; FsdeployError with the first when it ended with a failure."""
    answer = ssh.execute(host, "sh -s", input_text=script, timeout=300)
    said = [line.strip() for line in answer.output.splitlines() if line.strip()]
    if not answer.ok:
        raise FsdeployError(f"{host.name}: {said[0] if said else 'the shell did not answer'}")
    return said
