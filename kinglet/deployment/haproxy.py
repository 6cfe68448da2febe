"""The front: HAProxy's configuration, the commands that move it while it runs, and what it says of its servers.

Two backends. `serving` holds the champion. `probation` holds a candidate and behind it the champion again: as long as
the candidate is up all requests go there. What it fails to answer is sent to the other, so that no client sees the
failure; and taking a promotion back is to disable the candidate, for `serving` was never touched.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

SERVING, PROBATION = "serving", "probation"
CHAMPION, CANDIDATE, FALLBACK = f"{SERVING}/champion", f"{PROBATION}/candidate", f"{PROBATION}/fallback"
HOST = "127.0.0.1"
# A server that is not there yet needs an address all the same.
NO_PORT = 9
UP = "UP"

CONFIGURATION = """\
# Written by `kinglet deploy`; changes are lost with the next one.
global
    maxconn 1024
    stats socket {socket} mode 600 level admin
    log stdout format raw daemon warning
    # A request is sent again only as long as it is held as a whole; an image may be large.
    tune.bufsize 262144

defaults
    mode http
    log global
    timeout connect 1s
    timeout http-request 15s
    timeout client 35s
    timeout server 30s
    timeout queue 10s
    timeout check 5s
    option httpchk GET /v2/health/ready
    option redispatch 1
    # A connection for every request: one that was kept, and is found closed, would be the client's to try again.
    option http-server-close
    http-reuse never
    # Predictions change nothing, so what was not answered may be asked again.
    retries 5

frontend requests
    bind {address}:{port}
    option http-buffer-request
    use_backend {probation} if {{ srv_is_up({candidate}) }}
    default_backend {serving}

backend {serving}
    retry-on conn-failure empty-response
    server champion {host}:{champion_port} check inter 500ms fall 3 rise 1{disabled}

backend {probation}
    # All requests go to the candidate, but one that is sent again goes to the next server. A `backup` would not get it
    # as long as the candidate says ready: the candidate would be asked five times, and its last failure be passed on.
    balance first
    retry-on conn-failure empty-response junk-response response-timeout 500 502 504
    default-server check inter 500ms rise 1
    server candidate {host}:{no_port} fall 2 rise 1000 disabled
    # Stays when the candidate goes: a request whose connection failed waits up to a second before it is sent again.
    server fallback {host}:{champion_port} fall 3{disabled}
"""


@dataclass(frozen=True)
class ServerState:
    """What the front says of one server or backend.

    status: "UP", "MAINT", "DOWN 1/2" and so on. current: requests under way. errors: answers of 500 and more,
    connections and answers that failed, and requests that another server was asked instead. port: where requests for
    it go.
    """

    status: str
    current: int
    errors: int
    port: int

    @property
    def is_up(self) -> bool:
        """Whether requests may go there."""
        return self.status == UP or self.status.startswith(f"{UP} ")


def configuration(address: str, port: int, champion_port: int | None, socket: str) -> str:
    """Return the configuration of a front.

    address, port: where clients ask. champion_port: of the container in production on this machine; None if there is
    none yet. socket: path at which the front takes commands.
    """
    return CONFIGURATION.format(
        socket=socket,
        address=f"[{address}]" if ":" in address else address,
        port=port,
        serving=SERVING,
        probation=PROBATION,
        candidate=CANDIDATE,
        host=HOST,
        champion_port=champion_port or NO_PORT,
        no_port=NO_PORT,
        disabled="" if champion_port else " disabled",
    )


def point(server: str, port: int) -> list[str]:
    """Return the commands that send a server's requests to a port and let them come."""
    return [f"set server {server} addr {HOST} port {port}", f"set server {server} state ready"]


def close(server: str) -> list[str]:
    """Return the commands after which a server gets no further request; those under way are answered."""
    return [f"set server {server} state maint"]


def read_states(statistics: str) -> dict[str, ServerState]:
    """Return {backend/server: its state} from what the front answers to `show stat`, and {backend: its state}.

    A backend's requests under way are also those that are with none of its servers: queued, or about to be sent again.
    """
    rows = csv.DictReader(io.StringIO(statistics.removeprefix("# ")))
    return {
        row["pxname"] if row["svname"] == "BACKEND" else f"{row['pxname']}/{row['svname']}": ServerState(
            status=row["status"],
            current=int(row["scur"] or 0),
            errors=sum(int(row[key] or 0) for key in ("hrsp_5xx", "econ", "eresp", "wredis")),
            port=int((row["addr"] or f":{NO_PORT}").rpartition(":")[2]),
        )
        for row in rows
        if row["svname"] != "FRONTEND"
    }
