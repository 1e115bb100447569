"""One wave over SSH to a stub host of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import scale_ssh


def test_a_wave_is_measured_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    boot = sorted(Path("/boot").rglob("*"))
    mounts = Path("/proc/self/mounts").read_text()
    rows = {what: (wall, remark) for what, wall, _, remark in scale_ssh.measure(1, tmp_path)}
    for name in ("stage", "arm", "promote"):
        assert rows[f"{name}.yml"][1] == "1 of 1 hosts changed"
        assert rows[f"{name}.yml, nothing to change"][1] == "0 of 1 hosts changed"
    assert "  Copy the package" in rows
    assert rows["connections made since"][0] == "0"  # all of it went over the first one
    # What the playbooks wrote is gone, and so are the servers.
    assert sorted(Path("/boot").rglob("*")) == boot
    assert Path("/proc/self/mounts").read_text() == mounts
    assert str(tmp_path) not in run.run(["ps", "-eo", "args"]).output


def test_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="between 1 and 250"):
        scale_ssh.measure(251, tmp_path)
