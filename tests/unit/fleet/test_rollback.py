"""Which kernel a host goes back to, what is expected of it, and status."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.bootloader import BootState, Entry, Kind
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plan import Candidate, RolloutPlan, plan_rollout
from fsdeploy.fleet.rollback import choose_release
from fsdeploy.fleet.states import State
from fsdeploy.fleet.status import fleet_status
from fsdeploy.fleet.verify import expectation_for
from fsdeploy.verify.report import Expectation
from tests.unit.fleet.fakes import NEW, OLD


def menu(*releases: str) -> BootState:
    entries = tuple(
        Entry(index, release, release, f"/vmlinuz-{release}", "", ())
        for index, release in enumerate(releases)
    )
    return BootState(Kind.REDHAT_LEGACY, "grub.conf", entries, releases[0], "")


@pytest.mark.parametrize(
    ("releases", "running", "wanted", "previous", "chosen"),
    [
        ((NEW, OLD, "1"), NEW, "1", OLD, "1"),
        ((NEW, OLD, "1"), NEW, "", OLD, OLD),
        ((NEW, OLD), NEW, "", "", OLD),
        # The last rollout came back by itself: what it came back to is no way back.
        ((NEW, OLD), NEW, "", NEW, OLD),
    ],
)
def test_the_kernel_to_go_back_to(
    releases: tuple[str, ...], running: str, wanted: str, previous: str, chosen: str
) -> None:
    assert choose_release(menu(*releases), running, wanted, previous) == chosen


def test_no_way_back_and_too_many() -> None:
    with pytest.raises(FsdeployError, match="no kernel but the running one"):
        choose_release(menu(NEW), NEW, "", "")
    with pytest.raises(FsdeployError, match="several kernels"):
        choose_release(menu(NEW, OLD, "1"), NEW, "", "")
    with pytest.raises(FsdeployError, match="has no entry for 2"):
        choose_release(menu(NEW, OLD), NEW, "2", "")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3")


def plan(release: str) -> RolloutPlan:
    return plan_rollout(release, [Candidate("a", "metal")])


def through(journal: Journal, *states: State, **facts: str) -> None:
    number = journal.begin(plan(NEW), inventory="i", request={})
    for state in states:
        journal.move(number, "a", state, facts=facts)


PROMOTED = (
    State.PREFLIGHT,
    State.STAGED,
    State.ARMED,
    State.TRIAL,
    State.VERIFIED,
    State.PROMOTED,
)


def test_what_is_expected_of_a_promoted_host(journal: Journal) -> None:
    through(journal, *PROMOTED, previous=OLD)
    assert expectation_for(journal.latest_of("a"), NEW) == Expectation(NEW, NEW, OLD, True)


def test_what_is_expected_of_a_host_that_came_back(journal: Journal) -> None:
    through(journal, State.PREFLIGHT, State.ROLLED_BACK, previous=OLD)
    assert expectation_for(journal.latest_of("a"), NEW) == Expectation(OLD, OLD, "", False)


def test_what_is_expected_of_a_host_that_was_not_promoted(journal: Journal) -> None:
    through(journal, *PROMOTED[:-1], previous=OLD)
    assert expectation_for(journal.latest_of("a"), NEW) == Expectation(NEW, OLD, OLD, True)


def test_what_is_expected_of_an_unknown_host() -> None:
    assert expectation_for(None, "") == Expectation()
    assert expectation_for(None, "", NEW) == Expectation(NEW, NEW, "", True)


def test_status_of_the_journal(journal: Journal, tmp_path: Path) -> None:
    through(journal, State.PREFLIGHT, previous=OLD)
    report = fleet_status(journal=journal)
    assert [(host.host, host.state) for host in report.hosts] == [("a", "preflight")]
    assert report.open_rollout == 1
    assert report.exit_code is ExitCode.OK
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("fleet: {hosts: {a: , b: {ansible_host: 127.0.0.1, ansible_port: 1}}}")
    report = fleet_status(inventory=inventory, limit=("b",), live=True, journal=journal)
    (host,) = report.hosts
    assert host.reason == "never in a rollout"
    assert host.reached is False
    assert report.exit_code is ExitCode.UNREACHABLE


def test_status_tells_what_happened_last(journal: Journal) -> None:
    through(journal, *PROMOTED, previous=OLD)
    second = journal.begin(plan("9"), inventory="i", request={})
    journal.move(second, "a", State.REFUSED, "no space")
    assert [host.state for host in fleet_status(journal=journal).hosts] == ["refused"]
    journal.move(1, "a", State.ROLLED_BACK, "by hand")
    assert [host.state for host in fleet_status(journal=journal).hosts] == ["rolled-back"]


def test_hosts_are_only_asked_by_name(journal: Journal) -> None:
    with pytest.raises(FsdeployError, match="--inventory"):
        fleet_status(live=True, journal=journal)
