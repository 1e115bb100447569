# SPDX-License-Identifier: GPL-2.0-only
"""nginx: workers, both ways to accept, reload, a new binary, and workers that are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .harness import (
    CPUS,
    Load,
    all_answered,
    check,
    children,
    cores,
    is_mapped,
    kill_under,
    main,
    measured,
    need_bound,
    none_lost,
    note,
    switched_on,
    table,
    test,
    until,
)
from .nginx_server import PID, PORT, nginx

FOUND = ("Loc_est_lookup", "Glo_est_lookup", "Rem_est_lookup")
RPS = Path("/sys/class/net/lo/queues/rx-0/rps_cpus")


@test
def each_worker_serves_from_its_core() -> None:
    with measured(), nginx() as server:
        workers = server.workers(CPUS)
        need_bound(workers)
        check(all(map(is_mapped, workers)), "a worker without the library")
        check(len(os.sched_getaffinity(server.pid)) == CPUS, "the master is bound")
        answers = all_answered(PORT)
        check(set(answers.workers) == workers, f"not every worker served: {answers}")


@test
def each_worker_serves_with_multi_accept() -> None:
    with measured(), nginx(multi="on") as server:
        workers = server.workers(CPUS)
        need_bound(workers)
        answers = all_answered(PORT)
        check(set(answers.workers) == workers, f"not every worker served: {answers}")


@test
def accept_mutex_serves() -> None:
    # The workers take turns: who has not the mutex has its listener in no set.
    with measured(everywhere=False), nginx(mutex="on") as server:
        workers = server.workers(CPUS)
        answers = all_answered(PORT)
        check(set(answers.workers) <= workers, f"unknown workers: {answers}")


@test
def more_workers_than_cores_serve() -> None:
    with measured(), nginx(workers=CPUS + 2) as server:
        workers = server.workers(CPUS + 2)
        until(lambda: len(cores(workers)) == CPUS, "as many workers as cores are bound")
        all_answered(PORT)


@test
def fewer_workers_than_cores_serve() -> None:
    with measured(everywhere=False), nginx(workers=CPUS - 1) as server:
        workers = server.workers(CPUS - 1)
        until(lambda: len(cores(workers)) == CPUS - 1, "each worker is bound")
        all_answered(PORT)


def reload_under_load(mutex: str) -> None:
    with measured(everywhere=False), nginx(mutex=mutex) as server:
        old = server.workers(CPUS)
        load = Load(PORT)
        for _ in load.rounds():
            os.kill(server.pid, signal.SIGHUP)
            until(lambda: len(children(server.pid) - old) == CPUS, "the new workers")  # noqa: B023
            until(lambda: not old & children(server.pid), "the old workers end")  # noqa: B023
            old = server.workers(CPUS)
        # Not only that they serve: each is on a core of its own again. Under load, as a worker
        # that waits for connections with the mutex leaves it to nobody.
        need_bound(old)
        answers = none_lost(load)
        check(len(answers.workers) > CPUS, f"only some workers served: {answers}")


@test
def reload_loses_nothing() -> None:
    reload_under_load("off")


@test
def reload_with_accept_mutex_loses_nothing() -> None:
    reload_under_load("on")


def pid_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


@test
def a_new_binary_loses_nothing() -> None:
    with measured(everywhere=False), nginx() as server:
        old = server.workers(CPUS)
        load = Load(PORT)
        os.kill(server.pid, signal.SIGUSR2)
        until(lambda: pid_in(PID) not in (0, server.pid), "the new master")
        new = pid_in(PID)
        until(lambda: len(children(new)) == CPUS, "the new workers")
        os.kill(server.pid, signal.SIGWINCH)
        until(lambda: not old & children(server.pid), "the old workers end")
        os.kill(server.pid, signal.SIGQUIT)
        until(lambda: not server.runs(), "the old master ends")
        for _ in load.rounds():
            pass
        answers = none_lost(load)
        check(bool(set(answers.workers) & children(new)), f"no new worker served: {answers}")
        check(is_mapped(new), "the new master without the library")
        all_answered(PORT)
        need_bound(children(new))


@test
def a_killed_worker_takes_only_what_it_had_accepted() -> None:
    with measured(everywhere=False), nginx() as server:
        server.workers(CPUS)
        kill_under(Load(PORT), server, CPUS)
        all_answered(PORT)
        need_bound(children(server.pid))


@test
def steering_that_changes_loses_nothing() -> None:
    """Connections move between cores while they live."""
    everything = switched_on("enable_receive_flow_deliver", "enable_local_established")
    with measured(everywhere=False), nginx() as server, everything:
        server.workers(CPUS)
        load = Load(PORT)
        try:
            for number in load.rounds():
                # Every set of cores comes, none the same as the one before.
                RPS.write_text(f"{number * 7 % (1 << CPUS):x}\n")
            none_lost(load)
        finally:
            RPS.write_text("0\n")
        changed = [sum(row[name] for row in table("hash_stat")) for name in FOUND]
        note(" ".join(f"{name}={count}" for name, count in zip(FOUND, changed, strict=True)))
        check(changed[-1] > 0, "no packet came to another core than its connection")
        all_answered(PORT)


if __name__ == "__main__":
    main()
