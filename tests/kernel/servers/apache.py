# SPDX-License-Identifier: GPL-2.0-only
"""Apache httpd: its prefork server and its threaded one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .harness import (
    BODY,
    CPUS,
    NEWER,
    Load,
    Server,
    all_answered,
    check,
    children,
    is_mapped,
    kill_under,
    main,
    measured,
    need_bound,
    none_lost,
    test,
    until,
)

PORT = 8080
PID = Path("/tmp/apache/httpd.pid")
ROOT = Path("/tmp/apache/root")

CONFIGURATION = """
ServerName localhost
ServerRoot /tmp/apache
PidFile {pid}
ErrorLog /dev/stderr
DefaultRuntimeDir /tmp/apache
Listen {port}
LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule env_module /usr/lib/apache2/modules/mod_env.so
User www-data
Group www-data
DocumentRoot {root}
DirectoryIndex index.txt
KeepAlive off
{size}
"""

# As many of a kind as there are cores, and no fewer when they have nothing to do.
PREFORK = """
StartServers {cpus}
MinSpareServers {cpus}
MaxSpareServers {cpus}
ServerLimit {cpus}
MaxRequestWorkers {cpus}
MaxConnectionsPerChild 0
"""

# One thread of a child accepts, the others serve.
WORKER = """
StartServers {cpus}
ServerLimit {cpus}
ThreadsPerChild 16
ThreadLimit 16
MinSpareThreads 1
MaxSpareThreads {threads}
MaxRequestWorkers {threads}
MaxConnectionsPerChild 0
"""


def apache(mpm: str) -> Server:
    ROOT.mkdir(exist_ok=True)
    (ROOT / "index.txt").write_text(BODY)
    PID.unlink(missing_ok=True)
    size = PREFORK if mpm == "prefork" else WORKER
    path = Path("/tmp/apache/httpd.conf")
    path.write_text(
        CONFIGURATION.format(
            pid=PID, port=PORT, mpm=mpm, root=ROOT, size=size.format(cpus=CPUS, threads=16 * CPUS)
        )
    )
    return Server(PORT, "apache2", "-f", path, pid_file=PID, settings=NEWER)


@test
def prefork_serves() -> None:
    with measured(), apache("prefork") as server:
        workers = server.workers(CPUS)
        all_answered(PORT)
        need_bound(workers)
        check(all(map(is_mapped, workers)), "a worker without the library")
        check(len(os.sched_getaffinity(server.pid)) == CPUS, "the parent is bound")


@test
def threads_serve() -> None:
    # The thread that has the clone adds it to a set, another one accepts, on whatever core.
    with measured(everywhere=False) as seen, apache("worker") as server:
        workers = server.workers(CPUS)
        all_answered(PORT)
        check(all(map(is_mapped, workers)), "a worker without the library")
    for row in seen.hash_stat:
        check(row["Loc_lst_lookup"] > 0, f"no connection went to the clone of a core: {row}")
    taken = sum(row["Loc_accept"] + row["Rem_accept"] for row in seen.hash_stat)
    check(taken > 0, "nothing was accepted from a clone")


@test
def reload_loses_nothing() -> None:
    with measured(everywhere=False), apache("prefork") as server:
        old = server.workers(CPUS)
        load = Load(PORT)
        for _ in load.rounds():
            os.kill(server.pid, signal.SIGUSR1)
            until(lambda: not old & children(server.pid), "the old workers end")  # noqa: B023
            old = server.workers(CPUS)
        none_lost(load)
        all_answered(PORT)
        need_bound(children(server.pid))


@test
def a_killed_worker_takes_only_what_it_had_accepted() -> None:
    with measured(everywhere=False), apache("prefork") as server:
        server.workers(CPUS)
        kill_under(Load(PORT), server, CPUS)
        all_answered(PORT)
        need_bound(children(server.pid))


main()
