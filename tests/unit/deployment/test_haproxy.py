"""The front's configuration as HAProxy itself checks it, and its statistics as we read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kinglet.deployment.haproxy import CANDIDATE, CHAMPION, close, configuration, point, read_states

STATISTICS = (
    "# pxname,svname,scur,econ,eresp,status,hrsp_5xx,addr,\n"
    "requests,FRONTEND,3,,,OPEN,0,,\n"
    "serving,champion,2,0,0,UP,0,127.0.0.1:30000,\n"
    "serving,BACKEND,2,0,0,UP,0,,\n"
    "probation,candidate,1,2,3,DOWN 1/2,4,127.0.0.1:30001,\n"
)


def test_statistics_become_states() -> None:
    states = read_states(STATISTICS)
    assert set(states) == {CHAMPION, CANDIDATE}
    assert (states[CHAMPION].is_up, states[CHAMPION].current, states[CHAMPION].port) == (True, 2, 30000)
    assert (states[CANDIDATE].is_up, states[CANDIDATE].errors) == (False, 9)


def test_a_server_is_moved_by_commands() -> None:
    assert point(CHAMPION, 30002) == [
        "set server serving/champion addr 127.0.0.1 port 30002",
        "set server serving/champion state ready",
    ]
    assert close(CHAMPION) == ["set server serving/champion state maint"]


@pytest.mark.parametrize("champion", [None, 30000])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_haproxy_takes_the_configuration(tmp_path: Path, champion: int | None, address: str) -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if haproxy is None:
        pytest.skip("there is no haproxy program on this machine")
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration(address, 28080, champion, str(tmp_path / "socket")))
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
