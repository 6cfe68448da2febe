"""Whether the server of this container is ready, as an exit code: `python -m kinglet.serving.health`.

For the HEALTHCHECK of an image that holds neither curl nor a shell's tools. Imports the standard library alone.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

SECONDS = 4.0


def is_ready(environment: Mapping[str, str]) -> bool:
    """Return whether the server on this machine says that it is ready. environment: for KINGLET_PORT, 8000 if unset."""
    connection = http.client.HTTPConnection("127.0.0.1", int(environment.get("KINGLET_PORT") or 8000), timeout=SECONDS)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(os.environ) else 1)
