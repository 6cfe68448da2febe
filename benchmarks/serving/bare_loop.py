"""What no server can be faster than: decode, preprocess and `session.run` in a loop, without HTTP.

Written as one would without Kinglet: Pillow, numpy, ONNX Runtime on one thread. Prints one JSON object. Started by
`benchmarks.serving`, a new process for every round:

    .venv/bin/python -m benchmarks.serving.bare_loop BUNDLE IMAGES --seconds 5
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


def open_bundle(folder: Path) -> tuple[onnxruntime.InferenceSession, dict[str, Any], list[str]]:
    """Return a session of one thread, the preprocessing and the classes of a bundle."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    facts = json.loads((folder / "preprocessing.json").read_text())
    return session, facts, json.loads((folder / "labels.json").read_text())


def classify(
    content: bytes, session: onnxruntime.InferenceSession, facts: dict[str, Any], classes: list[str]
) -> tuple[str, float]:
    """Return the class of an encoded image and its probability."""
    size = facts["input_size"]
    picture = Image.open(io.BytesIO(content)).convert("L" if facts["channels"] == 1 else "RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if facts.get("takes_pixels"):
        tensor = np.asarray(picture).reshape(size, size, -1)
    else:
        pixels = np.asarray(picture, np.float32).reshape(size, size, -1) / 255
        normalized = (pixels - np.asarray(facts["mean"], np.float32)) / np.asarray(facts["std"], np.float32)
        tensor = normalized.transpose(2, 0, 1)
    logits = session.run(None, {"images": tensor[None]})[0][0]
    exponentials = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return classes[best], float(exponentials[best] / exponentials.sum())


def main() -> None:
    """Classify in a loop, and print how often that went and how long the slow ones took, also while images wait."""
    parser = argparse.ArgumentParser(description="Decode, preprocess and infer in a loop.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the three loops")
    parser.add_argument("--load", type=float, default=0.8, help="images that arrive, of those that it can do")
    options = parser.parse_args()
    session, facts, classes = open_bundle(options.bundle)
    contents = [path.read_bytes() for path in sorted(options.images.iterdir())]
    for content in contents:
        classify(content, session, facts, classes)

    def classify_next(number: int) -> None:
        classify(contents[number % len(contents)], session, facts, classes)

    used = time.process_time()
    times = times_of(classify_next, options.seconds)
    used = time.process_time() - used
    rate = len(times) / sum(times)
    waits = times_of(classify_next, options.seconds, options.load * rate)
    again = times_of(classify_next, options.seconds)
    figures = {
        "per_second": rate,
        "per_second_again": len(again) / sum(again),
        "p99_ms": 1000 * float(np.quantile(times, 0.99)),
        "loaded_p99_ms": 1000 * float(np.quantile(waits, 0.99)),
        "cpu_ms_each": 1000 * used / len(times),
    }
    print(json.dumps(figures))


def times_of(classify_next: Callable[[int], object], seconds: float, rate: float | None = None) -> list[float]:
    """Return how many seconds each image took.

    rate: images per second that arrive, whatever became of those before; each one's time counts from when it was due,
    as in `load.run_load`. None: the next is due when the last is done.
    """
    times: list[float] = []
    started = time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        due = started + len(times) / rate if rate else now
        if due > now:
            # The last half millisecond is waited for awake: a sleep ends late.
            time.sleep(max(0.0, due - now - 0.0005))
            continue
        classify_next(len(times))
        times.append(time.perf_counter() - due)
    return times


if __name__ == "__main__":
    main()
