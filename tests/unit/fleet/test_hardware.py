"""The hardware class that a host tells of itself."""

from __future__ import annotations

import platform

import pytest

from fsdeploy import run
from fsdeploy.fleet.hardware import ASK, hardware_class


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            """Welcome to web1
fsdeploy sys_vendor HP
fsdeploy product_name ProLiant DL380 G7
fsdeploy driver igb
fsdeploy driver cciss
fsdeploy driver igb
fsdeploy machine x86_64
""",
            "HP ProLiant DL380 G7, cciss, igb",
        ),
        ("fsdeploy sys_vendor \nfsdeploy product_name \nfsdeploy machine x86_64\n", "x86_64"),
        ("ssh: connect to host web1 port 22: Connection refused\n", ""),
    ],
)
def test_a_class_is_made_of_what_the_kernel_drives(answer: str, told: str) -> None:
    assert hardware_class(answer) == told


def test_the_question_is_one_that_a_shell_answers() -> None:
    answer = run.run(["sh", "-c", ASK]).output
    assert f"fsdeploy machine {platform.machine()}" in answer
    assert hardware_class(answer)
