"""A real server on a port of its own, in this process; and a small bundle for it to serve."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from kinglet.atomic import write_bytes, write_json, write_text
from kinglet.runtime import bundles
from kinglet.runtime.preprocessing import Preprocessing, square_of
from kinglet.runtime.sessions import logits_of, open_session, read_metadata, softmax
from kinglet.runtime.sketches import Reference, input_statistics, make_reference
from kinglet.serving.application import Application
from kinglet.serving.logs import JsonLog
from kinglet.serving.served_model import ServedModel
from kinglet.serving.server import DrainingServer, listening_socket, server_of
from kinglet.serving.settings import Settings
from tests.unit.tasks.small_project import CLASSES, RECIPES, noisy_quadrants, write_model


def build_bundle(root: Path, *, reference: bool = False) -> Path:
    """Write a bundle of a small model for RGB images of 16 pixels; with a reference for monitoring if asked for."""
    images, labels = noisy_quadrants(80, 16, 3)
    model = write_model(root / "model", RECIPES[1], images, labels, np.ones(80, bool), CLASSES) / "model.onnx"
    folder = root / "bundle"
    write_bytes(folder / bundles.MODEL, model.read_bytes())
    preprocessing, classes = read_metadata(open_session(model))
    write_json(folder / bundles.PREPROCESSING, {**preprocessing.to_dict(), bundles.FORMAT_KEY: bundles.FORMAT})
    write_json(folder / bundles.LABELS, classes)
    golden = noisy_quadrants(10, 16, 3, seed=1)[0]
    expected = softmax(logits_of(open_session(model), golden, np.arange(10), preprocessing))
    write_bytes(folder / bundles.GOLDEN, bundles.npz_bytes({"images": golden, "probabilities": expected}))
    write_text(
        folder / bundles.CARD, "# small student\n\n| | test |\n|---|---:|\n| accuracy | 91 % |\n\n<b>bold?</b>\n"
    )
    if reference:
        write_json(folder / bundles.REFERENCE, reference_of(model, preprocessing, classes).to_dict())
    bundles.seal(folder)
    return folder


def reference_of(model: Path, preprocessing: Preprocessing, classes: list[str]) -> Reference:
    """Return the reference of a model whose images were 20 pixels wide and high."""
    images, labels = noisy_quadrants(2000, 20, 3, seed=2)
    squares = np.stack([square_of(image, preprocessing) for image in images])
    probabilities = softmax(logits_of(open_session(model), squares, np.arange(2000), preprocessing))
    sizes = {"width": np.full(2000, 20.0), "height": np.full(2000, 20.0)}
    return make_reference(
        {**input_statistics(squares), **sizes}, probabilities, labels.astype(np.int64), np.ones(2000, bool), classes
    )


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    """Return pixels as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


@dataclass
class Running:
    """A server that runs: its application, its port, a client for it, and what it logged."""

    application: Application
    server: DrainingServer
    port: int
    client: httpx.Client
    log: io.StringIO


@contextmanager
def running(model: ServedModel, **settings: object) -> Iterator[Running]:
    """Serve `model` with these settings until the block ends."""
    log = io.StringIO()
    application = Application(model, Settings(**{"drain_timeout": 2.0, **settings}), JsonLog(log))
    server = server_of(application)
    listener = listening_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield Running(application, server, port, client, log)
    server.should_exit = True
    thread.join(20)
    application.close()
    assert not thread.is_alive()
