"""Objects of an S3 bucket, written once and whole: the store checks every byte, and no key is written twice.

Credentials, region and endpoint come from where every AWS tool takes them: the environment
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), ~/.aws, or the machine's role. None is ever printed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinglet.errors import KingletError

# Larger files go up in parts of this size: a lost connection costs one part. S3 takes no part below 5 MiB.
PART_BYTES = 8 * 2**20
RETRIES = {"max_attempts": 4, "mode": "standard"}
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412")
ABSENT = ("NoSuchKey", "404")
REFUSED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


class TakenError(Exception):
    """A conditional write found the key in another state than it asked for."""


@dataclass(frozen=True)
class Place:
    """A prefix in a bucket, without a slash at its ends; may be empty."""

    bucket: str
    prefix: str

    def key(self, name: str) -> str:
        """Return the key of an object below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def place_of(address: str) -> Place:
    """Return the place that `s3://bucket/prefix` names; raises KingletError for anything else."""
    scheme, separator, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme != "s3" or not separator or not bucket or not prefix or ".." in prefix.split("/"):
        raise KingletError(
            f"{address!r} is no place for a model's versions.", "Write s3://BUCKET/PREFIX/NAME, e.g. s3://models/hall."
        )
    return Place(bucket, prefix)


class Store:
    """The objects below one place. Every method raises KingletError where the store cannot be used."""

    def __init__(self, place: Place) -> None:
        """Open the place; nothing is sent yet. Raises KingletError without boto3."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ModuleNotFoundError:
            raise KingletError("s3:// needs boto3.", "Install it: pip install boto3") from None
        self.place = place
        self.failures = (BotoCoreError, ClientError)
        with self.explained():
            config = Config(retries=RETRIES, connect_timeout=10, read_timeout=60)
            # A session of its own: the default one belongs to whoever else uses boto3 in this process.
            self.client: Any = boto3.session.Session().client("s3", config=config)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the client raises into TakenError or a sentence."""
        try:
            yield
        except self.failures as error:
            if code_of(error) in TAKEN:
                raise TakenError from error
            raise refusal(error, self.place) from error
        except ValueError as error:
            # botocore's word for an endpoint or a region that is none.
            raise KingletError(f"{self.place} cannot be opened: {error}", "Check AWS_ENDPOINT_URL.") from error

    def create(self, name: str, file: Path) -> None:
        """Write a file to a new object; the store compares its SHA-256 before the object is seen by anyone.

        Raises TakenError if there is an object of this name: it is never written over.
        """
        if file.stat().st_size > PART_BYTES:
            self.create_in_parts(name, file)
        else:
            self.put(name, file.read_bytes(), IfNoneMatch="*")

    def put(self, name: str, content: bytes, **condition: str) -> None:
        """Write an object under a condition (IfMatch or IfNoneMatch); raises TakenError if it does not hold."""
        with self.explained():
            self.client.put_object(**self.named(name), Body=content, ChecksumSHA256=base64_sha256(content), **condition)

    def create_in_parts(self, name: str, file: Path) -> None:
        """Write a large file to a new object in parts, each with its checksum; all parts or no object."""
        with self.explained():
            upload = {
                **self.named(name),
                "UploadId": self.client.create_multipart_upload(**self.named(name), ChecksumAlgorithm="SHA256")[
                    "UploadId"
                ],
            }
            try:
                parts = []
                with file.open("rb") as opened:
                    for number, content in enumerate(iter(lambda: opened.read(PART_BYTES), b""), start=1):
                        checksum = {"ChecksumSHA256": base64_sha256(content)}
                        answer = self.client.upload_part(**upload, PartNumber=number, Body=content, **checksum)
                        parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksum})
                self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
            except BaseException:
                # Parts of an upload that never completes are invisible, but are paid for.
                with suppress(*self.failures):
                    self.client.abort_multipart_upload(**upload)
                raise

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Return an object's content and its ETag; None if there is no such object."""
        with self.explained():
            try:
                answer = self.client.get_object(**self.named(name))
                return answer["Body"].read(), answer["ETag"]
            except self.failures as error:
                if code_of(error) in ABSENT:
                    return None
                raise

    def download(self, name: str, file: Path) -> bool:
        """Write an object to a file, lost connections tried again; return False if there is no such object."""
        from boto3.exceptions import Boto3Error

        try:
            with self.explained():
                try:
                    self.client.download_file(self.place.bucket, self.place.key(name), str(file))
                except self.failures as error:
                    if code_of(error) in ABSENT:
                        return False
                    raise
        except Boto3Error as error:
            raise refusal(error, self.place) from error
        return True

    def names(self) -> list[str]:
        """Return the names of all objects below the place, without its prefix, sorted."""
        prefix = self.place.key("")
        with self.explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=prefix)
            return sorted(item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ()))

    def named(self, name: str) -> dict[str, str]:
        """Return the arguments that name an object."""
        return {"Bucket": self.place.bucket, "Key": self.place.key(name)}


def base64_sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes as S3 writes it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def code_of(error: Exception) -> str:
    """Return S3's code for an error, empty if the error is not the store's."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def refusal(error: Exception, place: Place) -> KingletError:
    """Return the sentence for what an S3 client raised."""
    name, code = type(error).__name__, code_of(error)
    if code == "NoSuchBucket":
        return KingletError(f"The bucket {place.bucket!r} of {place} does not exist.", "Correct its name, or make it.")
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"):
        return KingletError(
            f"{place} needs credentials and none were found.",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure`.",
        )
    if code in REFUSED:
        return KingletError(
            f"Access to {place} was refused ({code}).",
            "Check the credentials; publishing needs s3:GetObject, s3:PutObject and s3:ListBucket.",
        )
    if code == "RequestTimeTooSkewed":
        return KingletError(f"{place} refused: this machine's clock is wrong ({code}).", "Set the clock, e.g. by NTP.")
    if code == "BadDigest":
        return KingletError(f"What arrived at {place} was not what was sent ({code}).", "Try again.")
    if code:
        return KingletError(f"{place} refused with {code}.", "See the store's documentation of this code.")
    return KingletError(f"{place} cannot be reached: {error}", "Check the network and AWS_ENDPOINT_URL, and try again.")
