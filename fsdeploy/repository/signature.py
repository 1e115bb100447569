# SPDX-License-Identifier: GPL-2.0-only
"""What an RPM is apart from its signature, and whether a key signed it.

This is the control machine's rpm. What a host's own rpm thinks of a package is asked on the host:
playbooks/library/kernel_package.py.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from pathlib import Path

from fsdeploy import run

_LEAD = 96
_HEADER = struct.Struct(">8xII")  # after magic and reserved: index entries, bytes of their data
_ENTRY = 16


def content_sha256(path: Path) -> str:
    """sha256 of header and payload: what stays the same when a package is signed.

    ValueError when the file is too short to be a package.
    """
    with path.open("rb") as stream:
        stream.seek(_LEAD)
        head = stream.read(_HEADER.size)
        if len(head) != _HEADER.size:
            raise ValueError(f"{path} ends in its first header")
        entries, data = _HEADER.unpack(head)
        # The signature's header is padded to eight bytes.
        size = _HEADER.size + _ENTRY * entries + data
        stream.seek(_LEAD + size + -size % 8)
        return hashlib.file_digest(stream, "sha256").hexdigest()


def signature_problem(path: Path, public_key: Path) -> str:
    """Why a package is not one that the key signed as a whole; empty when it is."""
    # A keyring of its own: what else this machine trusts does not count.
    with tempfile.TemporaryDirectory(prefix="fsdeploy-keyring-") as folder:
        rpm = ["rpm", "--dbpath", folder]
        run.run([*rpm, "--import", public_key])
        asked = run.run([*rpm, "-K", path], check=False)
        # rpm before 4.14 can't do without this one; see key.py.
        form = "%{RSAHEADER:pgpsig}\\n%{SIGPGP:pgpsig}\\n"
        query = run.run([*rpm, "-qp", "--nosignature", "--qf", form, path], check=False)
    header, whole = query.output.splitlines()[-2:]
    if header == whole == "(none)":
        return "it is not signed"
    if asked.returncode != 0 or "signatures OK" not in asked.output:
        said = [line for line in asked.output.splitlines() if line.strip()]
        return f"rpm says {said[-1].rpartition(': ')[2] if said else 'nothing'}"
    if whole == "(none)":
        return "only its header is signed, and rpm 4.8 then takes any payload"
    return ""
