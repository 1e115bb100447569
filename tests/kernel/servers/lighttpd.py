# SPDX-License-Identifier: GPL-2.0-only
"""lighttpd: one process, and workers."""

from __future__ import annotations

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
    test,
)

PORT = 8080
ROOT = Path("/tmp/lighttpd/root")

CONFIGURATION = """
server.document-root = "{root}"
server.port = {port}
server.bind = "127.0.0.1"
server.username = "www-data"
server.groupname = "www-data"
server.event-handler = "{handler}"
server.max-worker = {workers}
server.max-keep-alive-requests = 0
server.listen-backlog = 512
index-file.names = ( "index.txt" )
mimetype.assign = ( ".txt" => "text/plain" )
"""


def lighttpd(workers: int, handler: str = "linux-sysepoll") -> Server:
    ROOT.mkdir(exist_ok=True)
    (ROOT / "index.txt").write_text(BODY)
    path = Path("/tmp/lighttpd/lighttpd.conf")
    path.write_text(CONFIGURATION.format(root=ROOT, port=PORT, workers=workers, handler=handler))
    return Server(PORT, "lighttpd", "-D", "-f", path, settings=NEWER)


@test
def one_process_serves() -> None:
    with measured(everywhere=False), lighttpd(0) as server:
        all_answered(PORT)
        check(is_mapped(server.pid), "the server without the library")
        # A worker is one that accepts, here the only process.
        check(not children(server.pid), "there are workers")


@test
def one_process_that_polls_serves() -> None:
    with measured(everywhere=False), lighttpd(0, "poll"):
        all_answered(PORT)


@test
def each_worker_serves_from_its_core() -> None:
    with measured(), lighttpd(CPUS) as server:
        workers = server.workers(CPUS)
        all_answered(PORT)
        need_bound(workers)
        check(all(map(is_mapped, workers)), "a worker without the library")


@test
def a_killed_worker_takes_only_what_it_had_accepted() -> None:
    with measured(everywhere=False), lighttpd(CPUS) as server:
        server.workers(CPUS)
        kill_under(Load(PORT), server, CPUS)
        all_answered(PORT)
        need_bound(children(server.pid))


main()
