"""`fsdeploy publish` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdeploy import cli
from tests.unit.repository.conftest import Made


def test_packages_are_published(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "repository"
    words = ["publish", str(made.small), "--key", made.fleet, "--gnupg-home", str(made.keys.home)]
    words += ["--output", str(output)]
    assert cli.main([*words, "--dry-run"]) == 0
    assert "would be published" in capsys.readouterr().out
    assert not output.exists()
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["added"] == [str(output / "Packages" / "small-1-1.noarch.rpm")]
    assert (told["fingerprint"], told["changed"]) == (made.fleet, True)
    assert Path(told["public_key"]).is_file()
    assert Path(told["repo_file"]).is_file()
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "is there, unchanged" in said
    assert "nothing changed" in said
    words[words.index(made.fleet)] = "nobody"
    assert cli.main(words) == 2
    assert "there is no secret key nobody" in capsys.readouterr().err
