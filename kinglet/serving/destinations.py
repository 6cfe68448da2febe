"""Where a server's sketches go: a folder, or a bucket of S3."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Protocol

from kinglet.atomic import write_bytes
from kinglet.errors import KingletError

SCHEME = "s3://"
# What the server's end may have to wait for is short.
SECONDS_TO_CONNECT, SECONDS_TO_READ = 3, 10


class Destination(Protocol):
    """A place for small files that are written once. Any exception says that a file is not there."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""


class Folder:
    """A folder on this machine, or one that is mounted."""

    def __init__(self, path: Path) -> None:
        """Make the folder; raises KingletError if nothing can be written there."""
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Of a name of its own: replicas that share a folder may start at once.
            trial = path / f".trial-{secrets.token_hex(4)}"
            write_bytes(trial, b"")
            trial.unlink()
        except OSError as error:
            raise KingletError(
                f"--monitor {path} cannot be written to: {error.strerror}.", "Name a folder of this user's."
            ) from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name, then rename it."""
        write_bytes(self._path / name, content)


class Bucket:
    """A prefix in a bucket of S3; credentials, region and endpoint are those of the environment, as for every tool."""

    def __init__(self, address: str) -> None:
        """Open s3://bucket/prefix; raises KingletError if it is none, or without boto3."""
        self._bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket or not self._prefix:
            raise KingletError(f"--monitor {address} names no prefix in a bucket.", "Write s3://BUCKET/PREFIX.")
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise KingletError(
                f"--monitor {address} needs boto3, and it is not installed.",
                "Install it with `pip install 'kinglet[s3]'`, or name a folder.",
            ) from None
        config = Config(
            retries={"max_attempts": 2, "mode": "standard"},
            connect_timeout=SECONDS_TO_CONNECT,
            read_timeout=SECONDS_TO_READ,
        )
        try:
            self._client: Any = boto3.session.Session().client("s3", config=config)
        except ValueError as error:
            raise KingletError(f"--monitor {address} cannot be opened: {error}", "Check AWS_ENDPOINT_URL.") from None

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=content)


def destination_of(address: str) -> Destination:
    """Return the place that an address names; raises KingletError if it cannot be used."""
    return Bucket(address) if address.startswith(SCHEME) else Folder(Path(address))
