"""Prefect's server for the time of one run, unless the user has named one (PREFECT_API_URL)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from kinglet.errors import KingletError

API_URL = "PREFECT_API_URL"
# Set where the server named by PREFECT_API_URL is one of our own, for this run only.
OWN_SERVER = "KINGLET_OWN_SERVER"
LOG = Path(".kinglet") / "prefect-server.log"
SECONDS_TO_START = 180.0


def start_server() -> tuple[subprocess.Popen[bytes], str] | None:
    """Start a server of our own and return it with its address; None when the user's own is to be used.

    Prefect would start the same server, but only after its client is imported. Started from here the
    two imports run side by side, and the client never imports the server's code (5 s of computing
    on a busy machine).
    """
    if os.environ.get(API_URL):
        return None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
                *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"),
            ],
            env={
                **os.environ,
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return server, f"http://127.0.0.1:{port}/api"


def wait_for_server() -> None:
    """Wait until the server named by PREFECT_API_URL answers; return at once when none is named.

    Raises KingletError when it does not within three minutes.
    """
    # Here, as commands that only start a server or name its variables wait for no HTTP and no TLS.
    import urllib.error
    import urllib.request

    address = os.environ.get(API_URL)
    if not address:
        return
    deadline = time.monotonic() + SECONDS_TO_START
    # A proxy of the user's is not asked for what runs on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if "//127.0.0.1:" in address else None))
    while True:
        try:
            with opener.open(f"{address}/health", timeout=10):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if time.monotonic() > deadline:
                raise KingletError(
                    f"Prefect's server at {address} does not answer ({error}).",
                    f"See {LOG}, or run without Prefect: .venv/bin/dvc repro.",
                ) from None
            time.sleep(0.05)
