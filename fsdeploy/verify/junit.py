# SPDX-License-Identifier: GPL-2.0-only
"""Reports as JUnit XML, which CI systems read: one suite a host, one case a check. Pure.

pytest's own writer makes one suite of a whole run and knows nothing of checks that are only
wanted, nor of several runs side by side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from fsdeploy.verify.report import CheckResult, Expectation, HostReport, Outcome

# What XML 1.0 cannot hold, not even escaped; a host may say anything.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _fit(text: str) -> str:
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def _case(check: CheckResult) -> ElementTree.Element:
    """A check. A wanted one that failed is told in its output and is no failure."""
    case = ElementTree.Element(
        "testcase",
        classname=_fit(f"{check.host}.{check.group}"),
        name=check.name,
        time=f"{check.seconds:.3f}",
    )
    said = _fit(f"{check.title} {check.message}")
    if check.outcome is Outcome.SKIPPED:
        ElementTree.SubElement(case, "skipped", message=_fit(check.message))
    elif check.outcome is Outcome.FAILED and check.required:
        failure = ElementTree.SubElement(case, "failure", message=_fit(check.message))
        failure.text = said
    elif check.outcome is Outcome.FAILED:
        ElementTree.SubElement(case, "system-out").text = f"wanted only: {said}"
    return case


def _suite(host: HostReport, expected: Expectation, stamp: str) -> ElementTree.Element:
    cases = [_case(check) for check in host.checks]
    if not host.reached:
        silent = ElementTree.Element(
            "testcase", classname=_fit(f"{host.host}.ssh"), name="answers", time="0"
        )
        message = _fit(host.message or "no answer")
        ElementTree.SubElement(silent, "error", message=message).text = f"unreachable: {message}"
        cases.append(silent)
    suite = ElementTree.Element(
        "testsuite",
        name=_fit(host.host),
        hostname=_fit(host.host),
        timestamp=stamp,
        tests=str(len(cases)),
        failures=str(host.count(Outcome.FAILED, required=True)),
        errors=str(int(not host.reached)),
        skipped=str(host.count(Outcome.SKIPPED)),
        time=f"{sum(check.seconds for check in host.checks):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("kernel", host.kernel), ("expected", expected.release)):
        ElementTree.SubElement(properties, "property", name=name, value=_fit(value))
    suite.extend(cases)
    return suite


def junit_xml(
    hosts: Sequence[HostReport], expected: Mapping[str, Expectation], stamp: str, seconds: float
) -> str:
    """The document; `stamp` is when the checks began, as in 2026-11-21T14:05:00."""
    suites = [_suite(host, expected[host.host], stamp) for host in hosts]
    root = ElementTree.Element("testsuites", name="fsdeploy verify", time=f"{seconds:.3f}")
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.attrib[count]) for suite in suites)))
    root.extend(suites)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'
