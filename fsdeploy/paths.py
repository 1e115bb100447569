# SPDX-License-Identifier: GPL-2.0-only
"""Where things are: what the project ships, the user's cache and the user's state."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """Folder that holds patches/, kernel-config/, playbooks/, modules/ and libfsocket/.

    In a checkout that is its root; an installed wheel carries the same folders in `fsdeploy/data`.
    """
    package = Path(__file__).resolve().parent
    carried = package / "data"
    return carried if carried.is_dir() else package.parent


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG base directory specification: a relative path is invalid and ignored.
    base = Path(value) if value.startswith("/") else Path.home() / default
    return base / "fsdeploy"


def cache_dir() -> Path:
    """Sources, builds and images: can be deleted, costs time."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Journal, lab, logs: what is true about hosts; not for deletion."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def log_dir() -> Path:
    """Logs of commands, one file a run. Made on first use."""
    folder = state_dir() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
