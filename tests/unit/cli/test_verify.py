"""What `fsdeploy verify` shows and writes, for one host and for many."""

from __future__ import annotations

import argparse
import json
import shlex
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fsdeploy.cli import verify as command
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.verify import VerifyReport, VerifyRequest
from fsdeploy.verify.report import CheckResult, Expectation, HostReport, Outcome, findings

NEW = "2.6.32-431.el6.fs1.0123abcd.x86_64"
OLD = "2.6.32-431.el6.x86_64"
# What a host says may be anything.
NASTY = 'the log says: <script>alert("1")</script> & \x1b[31m'

VOID = {"meta", "br", "link", "img", "input", "hr"}


def check(
    host: str, name: str, outcome: Outcome, message: str = "", *, required: bool = True
) -> CheckResult:
    return CheckResult(host, name, f"About {name}.", outcome, required, message, "kernel", 0.25)


def host_report(name: str, how: str = "ok") -> HostReport:
    if how == "unreachable":
        return HostReport(name, False, (), "Connection refused")
    wrong = how == "failed"
    return HostReport(
        name,
        True,
        (
            check(
                name,
                "release",
                Outcome.FAILED if wrong else Outcome.PASSED,
                f"it runs {OLD}, expected is {NEW}" if wrong else "",
            ),
            check(name, "log", Outcome.FAILED if wrong else Outcome.PASSED, NASTY if wrong else ""),
            check(name, "tuned", Outcome.SKIPPED, "no such setting was applied"),
            check(name, "clock", Outcome.FAILED, "the clock is hpet", required=False),
        ),
        "",
        OLD if wrong else NEW,
    )


def report_of(*hosts: HostReport) -> VerifyReport:
    expected = {host.host: Expectation(NEW, NEW, OLD, True) for host in hosts}
    return VerifyReport(hosts, expected, 12.5, Path("/logs/verify.log"))


@pytest.fixture
def mixed() -> VerifyReport:
    return report_of(host_report("a"), host_report("b", "failed"), host_report("c", "unreachable"))


def run(
    monkeypatch: pytest.MonkeyPatch, report: VerifyReport, line: str = ""
) -> tuple[int, list[VerifyRequest]]:
    asked = []

    def stand_in(request: VerifyRequest) -> VerifyReport:
        asked.append(request)
        return report

    monkeypatch.setattr(command, "verify_hosts", stand_in)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.main(parser.parse_args(["-i", "hosts.yml", *shlex.split(line)])), asked


def test_one_host_is_a_table_and_a_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, report_of(host_report("web1")))[0] == ExitCode.OK
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if "web1 " in line]
    assert "2 passed, 0 failed, 1 not applicable, 1 wanted only" in row
    assert "wanted, and not so, on 1 of 1 hosts: About clock\n" in said
    assert said.endswith("1 host: 1 ok, 0 failed, 0 unreachable\n")


def test_three_hundred_hosts_are_told_by_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [host_report(f"web{number:03}") for number in range(280)]
    hosts += [host_report(f"bad{number:02}", "failed") for number in range(18)]
    hosts += [host_report(f"gone{number}", "unreachable") for number in range(2)]
    code, _ = run(monkeypatch, report_of(*hosts))
    assert code == ExitCode.UNREACHABLE
    said = capsys.readouterr().out
    assert "failed on 18 of 300 hosts: About release\n" in said
    assert f"expected is {NEW}: bad00, bad01, bad02, bad03, bad04, bad05 and 12 more\n" in said
    assert "unreachable: 2 of 300 hosts\n  Connection refused: gone0, gone1\n" in said
    assert said.endswith("300 hosts: 280 ok, 18 failed, 2 unreachable\n")
    # Hosts that are well are only counted; the required check comes before the wanted one.
    assert "web279" not in said
    assert said.index("About log") < said.index("About clock")
    assert len(said.splitlines()) < 50


def test_many_different_messages_are_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [
        HostReport(name, True, (check(name, "log", Outcome.FAILED, f"oops at {name}"),))
        for name in (f"web{number}" for number in range(9))
    ]
    assert run(monkeypatch, report_of(*hosts))[0] == ExitCode.CHECK_FAILED
    assert "  and 4 other messages, of 4 hosts\n" in capsys.readouterr().out


def test_findings_put_the_most_frequent_first() -> None:
    hosts = [
        HostReport(name, True, (check(name, "log", Outcome.FAILED, message),))
        for name, message in (("a", "x"), ("b", "y"), ("c", "y"))
    ]
    (finding,) = findings(hosts)
    assert finding.count == 3
    assert list(finding.hosts.items()) == [("y", ("b", "c")), ("x", ("a",))]


def test_junit_has_a_suite_a_host_and_a_case_a_check(
    monkeypatch: pytest.MonkeyPatch, mixed: VerifyReport, tmp_path: Path
) -> None:
    path = tmp_path / "verify.xml"
    code, _ = run(monkeypatch, mixed, f"--junit {path}")
    assert code == ExitCode.UNREACHABLE
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == "testsuites"
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "9",
        "failures": "2",
        "errors": "1",
        "skipped": "2",
    }
    a, b, c = root
    assert [suite.get("name") for suite in root] == ["a", "b", "c"]
    assert a.get("failures") == "0"
    assert {item.get("name"): item.get("value") for item in a.iter("property")} == {
        "kernel": NEW,
        "expected": NEW,
    }
    release, log, tuned, clock = b.findall("testcase")
    assert (release.get("classname"), release.get("name")) == ("b.kernel", "release")
    assert release.get("time") == "0.250"
    failure = release.find("failure")
    assert failure is not None
    assert failure.get("message") == f"it runs {OLD}, expected is {NEW}"
    # XML has no escape character, not even escaped.
    message = log.find("failure")
    assert message is not None
    assert message.get("message") == NASTY.replace("\x1b", "\ufffd")
    assert tuned.find("skipped") is not None
    assert clock.find("failure") is None
    assert clock.findtext("system-out") == "wanted only: About clock. the clock is hpet"
    (silent,) = c.findall("testcase")
    error = silent.find("error")
    assert error is not None
    assert error.get("message") == "Connection refused"


class Page(HTMLParser):
    """Text and tags of a page; an end without its beginning fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.values: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def test_the_page_needs_nothing_else_and_believes_no_host(
    monkeypatch: pytest.MonkeyPatch, mixed: VerifyReport, tmp_path: Path
) -> None:
    path = tmp_path / "verify.html"
    run(monkeypatch, mixed, f"--html {path}")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    said = " ".join(page.words)
    # Nothing is loaded, and what a host says is text.
    assert page.values == []
    assert "url(" not in text
    assert "script" not in page.tags
    assert 'the log says: <script>alert("1")</script> &' in said
    assert "3 hosts 1 ok 1 failed 1 unreachable" in said
    order = [
        "Hosts that do not answer",
        "1: Connection refused",
        "Required checks that failed",
        "About release: not on 1 of 3 hosts",
        "Wanted, and not so (fails nothing)",
        "About clock: not on 2 of 3 hosts",
        f"Kernels kernel that runs hosts {NEW} 1 {OLD} 1",
    ]
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    # What somebody has to look at comes first.
    table = said[said.index("host state kernel") :]
    assert table.index("c unreachable") < table.index("b failed") < table.index("a ok")
    # A kernel that is not the expected one stands beside it, and failed checks before others.
    assert f"c unreachable not known expected: {NEW} Connection refused" in table
    assert f"b failed {OLD} expected: {NEW}" in table
    assert f"a ok {NEW} 2 passed" in table
    assert table.index("About clock", table.index("a ok")) < table.rindex("About release")
    assert 'name="viewport"' in text
    assert "@media print" in text


def test_a_page_without_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "verify.html"
    good = HostReport("a", True, (check("a", "release", Outcome.PASSED),), "", NEW)
    assert run(monkeypatch, report_of(good), f"--html {path}")[0] == ExitCode.OK
    said = " ".join(Page(path.read_text(encoding="utf-8")).words)
    assert "Required checks that failed" not in said
    assert "Hosts that do not answer" not in said


def test_json_lines_have_a_line_a_check(
    monkeypatch: pytest.MonkeyPatch, mixed: VerifyReport, tmp_path: Path
) -> None:
    path = tmp_path / "verify.jsonl"
    run(monkeypatch, mixed, f"--json-lines {path}")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["host"], line["check"]) for line in lines] == [
        *(("a", name) for name in ("release", "log", "tuned", "clock")),
        *(("b", name) for name in ("release", "log", "tuned", "clock")),
        ("c", None),
    ]
    assert lines[4]["outcome"] == "failed"
    assert lines[4]["state"] == "failed"
    assert lines[4]["kernel"] == OLD
    assert lines[-1]["message"] == "Connection refused"


@pytest.mark.parametrize("option", ["--junit", "--html", "--json-lines"])
def test_a_file_that_cannot_be_written_is_told_before_hosts_are_asked(
    monkeypatch: pytest.MonkeyPatch, mixed: VerifyReport, tmp_path: Path, option: str
) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "verify.xml"):
        with pytest.raises(FsdeployError, match="cannot be written"):
            run(monkeypatch, mixed, f"{option} {path}")


def test_json_is_the_whole_report(
    monkeypatch: pytest.MonkeyPatch, mixed: VerifyReport, capsys: pytest.CaptureFixture[str]
) -> None:
    code, asked = run(monkeypatch, mixed, f"--json --expect {NEW} --limit a --limit b")
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code == ExitCode.UNREACHABLE
    assert [host["state"] for host in document["hosts"]] == ["ok", "failed", "unreachable"]
    assert document["hosts"][0]["checks"][0]["group"] == "kernel"
    (request,) = asked
    assert (request.expect, request.limit) == (NEW, ("a", "b"))
