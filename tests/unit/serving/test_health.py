"""The image's health check, as its engine runs it."""

from __future__ import annotations

import subprocess
import sys

from kinglet.serving.health import is_ready


def test_it_follows_what_the_server_says(server) -> None:
    environment = {"KINGLET_PORT": str(server.port)}
    assert is_ready(environment)
    server.application.draining = True
    try:
        assert not is_ready(environment)
    finally:
        server.application.draining = False


def test_it_is_an_exit_code_and_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['x']; import kinglet.serving.health; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    nobody = subprocess.run(
        [sys.executable, "-m", "kinglet.serving.health"], env={"KINGLET_PORT": "1"}, capture_output=True
    )
    assert nobody.returncode == 1
