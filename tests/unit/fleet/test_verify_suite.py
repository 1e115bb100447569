"""What the checks write becomes a report a host."""

from __future__ import annotations

import json

from fsdeploy.verify.report import Expectation, Outcome
from fsdeploy.verify.suite import parse_results


def line(host: str, outcome: str, *, required: bool = True, reached: bool = True) -> str:
    return json.dumps(
        {
            "host": host,
            "name": "n",
            "title": "t",
            "outcome": outcome,
            "required": required,
            "message": "unreachable: gone" if not reached else "m",
            "reached": reached,
        }
    )


def test_a_report_a_host() -> None:
    hosts = {name: Expectation() for name in "abcd"}
    text = "\n".join(
        [
            line("a", "passed"),
            line("a", "failed", required=False),
            line("b", "failed"),
            line("b", "skipped"),
            line("c", "passed"),
            line("c", "failed", reached=False),
        ]
    )
    a, b, c, d = parse_results(text, hosts)
    assert a.ok
    assert not b.ok
    assert b.reached
    assert [check.outcome for check in b.checks] == [Outcome.FAILED, Outcome.SKIPPED]
    assert not c.reached
    assert c.message == "gone"
    assert not d.reached
