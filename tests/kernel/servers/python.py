# SPDX-License-Identifier: GPL-2.0-only
"""Servers in Python: those of its library, and the two old ways to share a listening socket."""

from __future__ import annotations

import os
from pathlib import Path

from .harness import (
    BODY,
    CONNECTIONS,
    CPUS,
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
    tasks,
    test,
)

PORT = 8080

# Python is slow, and here it is one process that does all the work.
FEWER = CONNECTIONS // 4

# `answer` of a name, which the load counts by.
COMMON = f"""
import os, socket, sys
def serve(connection, name):
    with connection:
        request = b""
        while b"\\r\\n\\r\\n" not in request:
            more = connection.recv(4096)
            if not more:
                return
            request += more
        connection.sendall(answer(name))
def answer(name):
    return b"HTTP/1.0 200 OK\\r\\nX-Worker: %d\\r\\n\\r\\n" % name + {BODY.encode()!r}
def cores():
    return len(os.sched_getaffinity(0))
address = ("127.0.0.1", {PORT})
"""

# Who serves a connection here says how many cores it may run on.
SOCKETSERVER = """
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        serve(self.request, cores())
class Threading(socketserver.ThreadingTCPServer):
    daemon_threads = True
class Forking(socketserver.ForkingTCPServer):
    max_children = 100
kind = dict(threading=Threading, forking=Forking)[sys.argv[1]]
kind.request_queue_size = 512
kind.allow_reuse_address = True
with kind(address, Handler) as server:
    server.serve_forever()
"""

ASYNCIO = """
import asyncio
async def handle(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(answer(os.getpid()))
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(handle, *address, backlog=512)
    await server.serve_forever()
asyncio.run(main())
"""

# Workers that wait in accept(): processes, or threads of one.
POOL = """
import threading
listener = socket.create_server(address, backlog=512)
def work():
    while True:
        serve(listener.accept()[0], threading.get_native_id())
def keep(count):
    alive = set()
    while True:
        while len(alive) < count:
            pid = os.fork()
            if pid == 0:
                work()
            alive.add(pid)
        alive.discard(os.wait()[0])
if sys.argv[1] == "processes":
    keep(int(sys.argv[2]))
for _ in range(int(sys.argv[2])):
    threading.Thread(target=work).start()
"""


def python(script: str, *words: str) -> Server:
    path = Path("/tmp/python/server.py")
    path.write_text(COMMON + script)
    return Server(PORT, "python3", path, *words)


def socketserver(kind: str) -> None:
    with measured(everywhere=False), python(SOCKETSERVER, kind) as server:
        answers = all_answered(PORT, FEWER)
        check(is_mapped(server.pid), "the server without the library")
        check(len(os.sched_getaffinity(server.pid)) == 1, "who accepts is not bound")
        check(set(answers.workers) == {CPUS}, f"who serves may not run everywhere: {answers}")


@test
def a_thread_for_each_connection_serves() -> None:
    socketserver("threading")


@test
def a_process_for_each_connection_serves() -> None:
    socketserver("forking")


@test
def asyncio_serves() -> None:
    with measured(everywhere=False), python(ASYNCIO) as server:
        answers = all_answered(PORT, FEWER)
        check(is_mapped(server.pid), "the server without the library")
        check(set(answers.workers) == {server.pid}, str(answers))


@test
def preforked_processes_serve() -> None:
    with measured(), python(POOL, "processes", str(CPUS)) as server:
        workers = server.workers(CPUS)
        answers = all_answered(PORT)
        need_bound(workers)
        check(set(answers.workers) == workers, f"not every worker served: {answers}")
        check(len(os.sched_getaffinity(server.pid)) == CPUS, "the parent is bound")


@test
def a_killed_process_takes_only_what_it_had_accepted() -> None:
    with measured(everywhere=False), python(POOL, "processes", str(CPUS)) as server:
        server.workers(CPUS)
        kill_under(Load(PORT), server, CPUS)
        all_answered(PORT)
        need_bound(children(server.pid))


@test
def a_pool_of_threads_serves() -> None:
    # They share their descriptors, so each accepts from the clones of all.
    with measured(everywhere=False), python(POOL, "threads", str(CPUS)) as server:
        answers = all_answered(PORT, FEWER)
        # The first thread only waits for the others.
        workers = set(tasks(server.pid)) - {server.pid}
        need_bound(workers)
        check(set(answers.workers) == workers, f"not every thread served: {answers}")


main()
