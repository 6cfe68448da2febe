"""A prefix in an S3 bucket, with one folder per class below it.

Credentials, region and endpoint come from where every AWS tool takes them: the environment
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), ~/.aws, or the machine's role.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from kinglet.data.sources.layout import arrange
from kinglet.data.sources.records import Record, Source
from kinglet.errors import KingletError

# Reads under way at once in one process. A read waits for the network, not for the processor.
CONCURRENT_READS = 16


def open_bucket(location: str, _images: str) -> Source:
    """Return the source of an `s3://bucket/prefix` with one folder per class below the prefix.

    _images: unused. Raises KingletError for a bucket that is missing, refuses or cannot be reached,
    and for a prefix without images.
    """
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    if not bucket:
        raise KingletError(f"data.source: {location} names no bucket.", "Write s3://bucket/prefix.")
    prefix = prefix.strip("/")
    start = f"{prefix}/" if prefix else ""
    keys = list_keys(bucket, start, location)
    records, left_out = arrange([key.removeprefix(start) for key in keys])
    if not records:
        raise KingletError(
            f"data.source: nothing below {location} is an image in the folder of a class ({len(keys)} objects seen).",
            "Name the prefix that the class folders lie under: s3://bucket/prefix holds prefix/CLASS/image.jpg.",
        )
    read = partial(read_object, bucket, start)
    return Source("bucket", records, read, concurrent_reads=CONCURRENT_READS, left_out=left_out)


@cache
def client() -> Any:
    """Return this process's S3 client."""
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError:
        raise KingletError("Reading from s3:// needs boto3.", "Install it: pip install 'dvc[s3]'.") from None
    retries = {"max_attempts": 4, "mode": "standard"}
    config = Config(max_pool_connections=CONCURRENT_READS, retries=retries, connect_timeout=10, read_timeout=60)
    return boto3.session.Session().client("s3", config=config)


def list_keys(bucket: str, start: str, location: str) -> list[str]:
    """Return the keys of all objects that start with `start`; folder markers excluded."""
    from botocore.exceptions import BotoCoreError

    with_reason = partial(refuse, bucket=bucket, location=location)
    try:
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
        return [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    except BotoCoreError as error:
        raise with_reason(error) from error
    except client().exceptions.ClientError as error:
        raise with_reason(error) from error


def refuse(error: Exception, bucket: str, location: str) -> KingletError:
    """Return the sentence for what an S3 client raised."""
    name = type(error).__name__
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return KingletError(f"data.source: the bucket {bucket!r} of {location} does not exist.", "Correct its name.")
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return KingletError(
            f"data.source: {location} needs credentials and none were found.",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`.",
        )
    if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return KingletError(
            f"data.source: access to {location} was refused ({code}).",
            "Check the credentials; they need s3:ListBucket and s3:GetObject.",
        )
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
        return KingletError(
            f"data.source: the server of {location} cannot be reached: {error}",
            "Check the network and AWS_ENDPOINT_URL.",
        )
    return KingletError(f"data.source: {location} cannot be read: {error}", "Check the address and the credentials.")


def read_object(bucket: str, start: str, record: Record) -> bytes:
    """Return the content of a record's object.

    Raises OSError if it is gone, KingletError if the server cannot be reached: that is not the
    image's fault and must not pass for it.
    """
    from botocore.exceptions import BotoCoreError

    try:
        body: bytes = client().get_object(Bucket=bucket, Key=start + record.location)["Body"].read()
        return body
    except BotoCoreError as error:
        raise refuse(error, bucket, f"s3://{bucket}/{start}{record.location}") from error
    except client().exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            raise FileNotFoundError(2, "No such object", record.location) from error
        raise refuse(error, bucket, f"s3://{bucket}/{start}{record.location}") from error
