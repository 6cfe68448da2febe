"""Whether a container answers as the bundle does offline, fast enough and within its memory, asked through HTTP."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.data.sources import open_source
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.decoding import decode
from kinglet.runtime.predictor import MAX_PIXELS, Predictor
from tasks.bundle_answers import Part, packed_for, read_part
from tasks.data_settings import Data
from tasks.deploy_settings import SmokeTestSettings
from tasks.serving_containers import Serving, is_failing, memory_mb

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
# The server rounds probabilities to six digits; it computes each image alone, and so does the reference.
TOLERANCE = 1e-5
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Findings:
    """What a container showed. golden_difference, test_difference: the largest of any probability from offline."""

    golden_images: int
    golden_difference: float
    test_images: int
    test_difference: float
    requests: int
    p50_ms: float
    p99_ms: float
    memory_mb: float


def smoke_test(
    engine: docker.DockerClient, serving: Serving, bundle: Path, images: Sequence[bytes], settings: SmokeTestSettings
) -> Findings:
    """Return what a container showed; raises KingletError for the first thing that is not as it should be.

    images: encoded, as clients send them.
    """
    predictor = Predictor(bundle, threads=1)
    predictor.check_golden(bundle / bundles.GOLDEN)
    golden = golden_images(bundle)
    with httpx.Client(base_url=serving.url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        try:
            golden_difference = difference_to_offline(client, predictor, golden, "golden image")
            test_difference = difference_to_offline(client, predictor, images, "test image")
            latencies = latencies_ms(client, images, settings.requests, settings.requests_per_second)
        except httpx.HTTPError as error:
            raise KingletError(
                f"The container {serving.name} stopped answering: {error}.", f"See `docker logs {serving.name}`."
            ) from None
    p50, p99 = (float(value) for value in np.quantile(latencies, (0.5, 0.99)))
    memory = memory_mb(engine, serving.name)
    refuse_beyond("p99_ms", p99, settings.p99_ms, "ms")
    refuse_beyond("memory_mb", memory, settings.memory_mb, "MB")
    if is_failing(engine, serving.name):
        raise KingletError(f"The container {serving.name} ended while it was tried.")
    return Findings(
        golden_images=len(golden),
        golden_difference=golden_difference,
        test_images=len(images),
        test_difference=test_difference,
        requests=len(latencies),
        p50_ms=round(p50, 3),
        p99_ms=round(p99, 3),
        memory_mb=round(memory, 1),
    )


def difference_to_offline(client: httpx.Client, predictor: Predictor, images: Sequence[bytes], noun: str) -> float:
    """Return the largest difference of a probability between a server's and the bundle's own answers.

    Raises KingletError with the first image that is answered otherwise. noun: what an image is called there.
    """
    largest = 0.0
    for number, content in enumerate(images):
        expected = predictor.predict([decode(content, MAX_PIXELS)[0]]).probabilities[0]
        answered = probabilities_of(client, content, predictor.classes, f"{noun} {number}")
        difference = float(np.abs(answered - expected).max())
        # NaN is larger than every tolerance.
        if not difference <= TOLERANCE:
            index = int(np.abs(answered - expected).argmax())
            raise KingletError(
                f"The container answers {noun} {number} otherwise than the bundle does here: class "
                f"{predictor.classes[index]!r} {answered[index]:.6f} in place of {expected[index]:.6f}.",
                "Container and this environment differ in versions or in how they see the processor.",
            )
        largest = max(largest, difference)
    return largest


def probabilities_of(client: httpx.Client, content: bytes, classes: Sequence[str], noun: str) -> NDArray[np.float64]:
    """Return what a server answers to an image, float64 (n_classes,) in the order of `classes`.

    Raises KingletError if it refuses, or knows other classes.
    """
    answer = client.post("/predict", params={"top": len(classes)}, content=content)
    if answer.status_code != httpx.codes.OK:
        raise KingletError(f"The container refuses {noun} with {answer.status_code}: {answer.text[:200]}")
    found = {item["class"]: item["probability"] for item in answer.json()["predictions"][0]["top"]}
    if set(found) != set(classes):
        raise KingletError(f"The container answers {noun} with other classes than the bundle's.")
    return np.array([found[name] for name in classes], np.float64)


def latencies_ms(client: httpx.Client, images: Sequence[bytes], requests: int, per_second: float) -> list[float]:
    """Return the milliseconds of requests that are sent evenly, each counted from when it was due.

    Raises KingletError if one is refused.
    """
    started, latencies = time.perf_counter(), []
    for number in range(requests):
        due = started + number / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        answer = client.post("/predict", content=images[number % len(images)])
        latencies.append(1000 * (time.perf_counter() - due))
        if answer.status_code != httpx.codes.OK:
            raise KingletError(f"The container refuses request {number} of the load with {answer.status_code}.")
    return latencies


def refuse_beyond(key: str, found: float, limit: float, unit: str) -> None:
    """Raise KingletError if a figure is beyond its budget, or is no number."""
    if not found <= limit:
        raise KingletError(
            f"The container needs {found:.3g} {unit}, more than smoke_test.{key} allows: {limit:g} {unit}.",
            "Raise the budget in deploy/settings.yaml, or what the container may use.",
        )


def golden_images(bundle: Path) -> list[bytes]:
    """Return a bundle's golden images, encoded without loss."""
    with np.load(bundle / bundles.GOLDEN, allow_pickle=False) as golden:
        return [encoded(image) for image in golden["images"]]


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image, uint8 (height, width, 1 or 3), as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def images_of_folder(folder: Path, n_images: int) -> list[bytes]:
    """Return image files of a folder and those below it, spread evenly over their names; at most `n_images`.

    Raises KingletError if there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not files:
        raise KingletError(f"{folder} holds no image ({', '.join(IMAGES)}).", "Name another folder with --images.")
    return [files[row].read_bytes() for row in spread_rows(len(files), n_images)]


def test_images(bundle: Path, data: Data, n_images: int) -> list[bytes]:
    """Return test images of the last run, spread evenly over them; at most `n_images`.

    They are the packed ones where those are what the bundle's preprocessing would make of the originals, else the
    originals. Raises KingletError if there is none.
    """
    part: Part | None = None
    with suppress(FileNotFoundError):
        part = read_part("test")
    if part is None or not len(part.rows):
        raise KingletError(
            "There are no test images of a run here to try the container with.",
            "Name a folder of images with --images, or run `dvc repro` first.",
        )
    rows = spread_rows(len(part.rows), n_images)
    packed = packed_for(Predictor(bundle, threads=1).preprocessing, data.fit)
    if packed is None:
        return originals(part, rows, data)
    return [encoded(np.asarray(packed[part.rows[row]])) for row in rows]


def originals(part: Part, rows: Sequence[int], data: Data) -> list[bytes]:
    """Return the files of some images of a split, as they came."""
    source = open_source(data.source, data.images)
    records = {record.path: record for record in source.records}
    contents = [source.read(records[part.paths[row]]) for row in rows]
    return [content if isinstance(content, bytes) else encoded(np.atleast_3d(content)) for content in contents]


def spread_rows(n_rows: int, wanted: int) -> list[int]:
    """Return at most `wanted` rows, spread evenly over all."""
    return [int(row) for row in np.linspace(0, n_rows - 1, min(n_rows, wanted)).round()]
