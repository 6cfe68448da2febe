"""Without a network: what is there is used, and what cannot be fetched is refused with the three ways to get it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.tasks.step_process import ROOT, Workplace, assert_refused, write_pets

NO_NETWORK = ("unshare", "--net")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """Steps that read Fashion-MNIST, which is neither on the system nor in the cache."""
    tried = subprocess.run([*NO_NETWORK, "true"], capture_output=True, text=True) if shutil.which("unshare") else None
    if tried is None or tried.returncode:
        pytest.skip(f"no process can be started without a network here: {tried.stderr if tried else 'no unshare'}")
    described = yaml.safe_load((ROOT / "data" / "fashion-mnist" / "dataset.yaml").read_text())
    described["system_folder"] = str(tmp_path / "nothing")
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(described))
    made = Workplace(tmp_path)
    made.set("data", source="dataset.yaml", images=".")
    return made


def test_set_that_cannot_be_fetched_is_refused_with_the_three_ways(place: Workplace) -> None:
    cache = place.root / "cache"
    done = place.step("ingest", prefix=NO_NETWORK, KINGLET_CACHE=str(cache))
    assert_refused(done, "was found nowhere")
    hint = next(line for line in done.stderr.splitlines() if line.startswith("hint: "))
    for way in ("One of three ways: install it (apt-get install", "let this machine reach", f"into {cache}/datasets/"):
        assert way in hint
    assert not list((cache / "datasets").iterdir())
    assert not (place.root / "artifacts").exists()


def test_images_of_ones_own_need_no_network(place: Workplace) -> None:
    write_pets(place.root / "photos", 6)
    place.set("data", source="photos", images="photos")
    done = place.step("ingest", prefix=NO_NETWORK)
    assert done.returncode == 0, done.stderr


def test_bucket_that_cannot_be_reached_is_refused(place: Workplace) -> None:
    pytest.importorskip("boto3")
    place.set("data", source="s3://photos/set")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    address = {"AWS_ENDPOINT_URL": "http://storage.example.org", "AWS_MAX_ATTEMPTS": "1"}
    done = place.step("ingest", prefix=NO_NETWORK, **keys, **address)
    assert_refused(done, "data.source: the server of s3://photos/set cannot be reached")
