# SPDX-License-Identifier: GPL-2.0-only
"""Reports as one HTML page that needs nothing else: to be mailed, kept or printed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import jinja2

from fsdeploy.verify.report import (
    Expectation,
    HostReport,
    Outcome,
    findings,
    silent,
    states,
)

# The order of hosts: what somebody has to look at comes first.
_ORDER = ("unreachable", "failed", "ok")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fsdeploy.verify", "."),
        # Whatever a host says is text, never markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html_page(
    hosts: Sequence[HostReport], expected: Mapping[str, Expectation], when: str, took: str
) -> str:
    """The page; `when` the checks began and how long they `took`, for a person."""
    kernels = Counter(host.kernel for host in hosts if host.kernel)
    return (
        _environment()
        .get_template("page.html")
        .render(
            hosts=sorted(hosts, key=lambda host: _ORDER.index(host.state)),
            expected=expected,
            states=states(hosts),
            findings=findings(hosts),
            silent=silent(hosts),
            kernels=kernels.most_common(),
            Outcome=Outcome,
            when=when,
            took=took,
        )
    )
