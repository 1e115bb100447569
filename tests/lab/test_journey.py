# SPDX-License-Identifier: GPL-2.0-only
"""The whole way of a host, as the demo plays it: a step that ends otherwise raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy import demo, run
from fsdeploy.kernel import source, target


@pytest.mark.build
@pytest.mark.lab
@pytest.mark.parametrize("name", ["lts61", pytest.param("el6", marks=pytest.mark.el6)])
def test_a_host_goes_there_and_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = target.load(name)
    if not wanted.source_package and source.find(wanted) is None:
        pytest.skip(f"no {name} source in the cache: fsdeploy source add PATH")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    scenes = demo.demo(demo.DemoRequest(name))
    seen = {scene.title: scene.outcome for scene in scenes}
    assert "promoted" in seen["roll out the patched kernel"]
    assert "rolled-back" in seen["roll out a kernel that panics"]
    assert "came back on" in seen["roll out a kernel that panics"]
    assert "stock." in seen["roll back to the stock kernel"]
    left = run.run(["ps", "-eo", "args"]).output
    assert str(tmp_path) not in left, "a process of the lab is still there"
