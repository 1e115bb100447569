# SPDX-License-Identifier: GPL-2.0-only
"""haproxy in front of nginx, with Receive Flow Deliver."""

from __future__ import annotations

import os
import signal
import time
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
    main,
    measured,
    none_lost,
    note,
    switched_on,
    table,
    tasks,
    test,
    total,
    until,
)

PORT = 80
BACKEND = 800
RFD = "enable_receive_flow_deliver"

# haproxy sets SO_REUSEPORT on its listeners unless told not to, and such ones get no clones.
CONFIGURATION = """
global
    {sharing}
    nbthread {cpus}
    maxconn 2000
defaults
    mode http
    timeout connect 30s
    timeout client 30s
    timeout server 30s
    option httpclose
frontend front
    bind *:{port}
    default_backend back
backend back
    http-response set-header X-Worker %[thread]
    server one 127.0.0.1:{backend} maxconn 1000
"""

NGINX = """
daemon off;
user www-data;
worker_processes {workers};
pid /tmp/haproxy/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; accept_mutex off; }}
http {{
    access_log off;
    server {{ listen {port}; location / {{ return 200 "{body}"; }} }}
}}
"""


def haproxy(*, sharing: str = "noreuseport") -> Server:
    path = Path("/tmp/haproxy/haproxy.cfg")
    path.write_text(CONFIGURATION.format(sharing=sharing, cpus=CPUS, port=PORT, backend=BACKEND))
    return Server(PORT, "haproxy", "-W", "-f", path)


def nginx() -> Server:
    path = Path("/tmp/haproxy/nginx.conf")
    body = BODY.replace("\n", r"\n")
    path.write_text(NGINX.format(workers=CPUS, port=BACKEND, body=body))
    return Server(BACKEND, "nginx", "-e", "stderr", "-c", path)


def steered(least: int) -> None:
    for row in table("steer_stat"):
        note("steer_stat " + " ".join(f"{name}={count}" for name, count in row.items()))
    # The answers of the backend come from its port to the one that names the core.
    check(total("steer_stat", "Steer_total") >= 3 * least, "connections were not steered")
    check(total("steer_stat", "Steer_error") == 0, "steering failed")


@test
def a_proxy_serves() -> None:
    with measured(), nginx(), haproxy() as server, switched_on(RFD):
        (worker,) = server.workers(1)
        check(is_mapped(worker), "the worker without the library")
        answers = all_answered(PORT)
        note(f"threads {len(tasks(worker))}")
        check(len(answers.workers) == CPUS, f"not every thread served: {answers}")
        steered(CONNECTIONS)


@test
def a_proxy_with_reuseport_serves() -> None:
    with measured(everywhere=False), nginx(), haproxy(sharing="") as server, switched_on(RFD):
        server.workers(1)
        all_answered(PORT)
        steered(CONNECTIONS)


def reload(server: Server) -> None:
    """Have haproxy start anew, and wait until it has."""
    heard, loaded = server.said("Reloading HAProxy"), server.said("Loading success")

    def is_heard() -> bool:
        # It may sleep past a signal that came just before.
        os.kill(server.pid, signal.SIGUSR2)
        time.sleep(0.5)
        return server.said("Reloading HAProxy") > heard

    until(is_heard, "haproxy reloads")
    until(lambda: server.said("Loading success") > loaded, "the new worker")


@test
def reload_loses_nothing() -> None:
    with measured(everywhere=False), nginx(), haproxy() as server, switched_on(RFD):
        old = server.workers(1)
        # A signal that comes while it still starts is lost.
        until(lambda: server.said("Loading success") > 0, "haproxy is ready")
        load = Load(PORT)
        for _ in load.rounds(accepts=2):
            reload(server)
            until(lambda: not old & children(server.pid), "the old worker ends", 40)  # noqa: B023
            old = server.workers(1)
        none_lost(load)
        steered(CONNECTIONS)
        all_answered(PORT)


main()
