"""What the server notes of the images that it answers: sketches, one file per interval, for `kinglet monitor`.

A request only hands its pixels over. A thread of its own measures them, adds the counts up and forgets them; no image
is ever written. What cannot be written stays in the sketch of the next interval, so a full disk loses nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import secrets
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.sessions import softmax
from kinglet.runtime.sketches import MAX_SAMPLE_NUMBERS, Sketch, empty_sketch, merged, reference_from, sketch_of_values
from kinglet.runtime.watched_answers import WATCHED
from kinglet.serving.destinations import Destination, destination_of
from kinglet.serving.logs import JsonLog
from kinglet.serving.metrics import Metrics
from kinglet.serving.seen import Seen, answers_of, inputs_of, parts_of
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

# Images of a tenth of a second of full load wait to be measured; more are counted as lost, whatever their size.
MAX_WAITING_BYTES = 32_000_000
# The thread looks so often, so that a request does not have to wake it.
SECONDS_BETWEEN_LOOKS = 0.1
# Answers are written before the interval ends where so many wait; what cannot be written beyond twice that is lost.
MAX_ANSWERS = 20_000
ANSWER_COLUMNS = ("id", "image", "class", "confidence")


class Monitor:
    """Sketches what one server answers. `take` is called from the event loop, all else happens in a thread."""

    def __init__(self, model: ServedModel, settings: Settings, log: JsonLog, metrics: Metrics) -> None:
        """Open the destination; raises KingletError if it or the bundle's reference cannot be used."""
        self._model, self._log, self._metrics = model, log, metrics
        self._reference = reference_from(model.reference, "reference.json of the bundle")
        self._reference_digest = hashlib.sha256(model.reference).hexdigest()
        self._destination: Destination = destination_of(settings.monitor)
        self._interval = settings.monitor_interval
        n_classes = len(self._reference.classes)
        most = MAX_SAMPLE_NUMBERS["sketch"] // n_classes if self._reference.watched.has_probabilities else 0
        self._rows = min(settings.monitor_sample, most)
        self._keeps_answers = settings.monitor_answers == "all"
        self._process, self._number = secrets.token_hex(4), 0
        self._random = np.random.default_rng()
        self._lock = threading.Lock()
        self._waiting: list[Seen] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._sketch, self._started = empty_sketch(self._reference), datetime.now(UTC)
        self._answers: list[tuple[str, int, str, float]] = []
        self._has_written_reference, self._fails = False, False
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def take(self, seen: Seen) -> None:
        """Note what a request asked and got; never waits and never fails."""
        with self._lock:
            if self._waiting_bytes + seen.n_bytes > MAX_WAITING_BYTES:
                self._lost += seen.n_images
                self._metrics.unmonitored_images.inc(seen.n_images)
                return
            self._waiting.append(seen)
            self._waiting_bytes += seen.n_bytes

    def close(self, seconds: float) -> None:
        """Write what is left and end; gives up after so many seconds."""
        self._ends.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            is_last = self._ends.wait(SECONDS_BETWEEN_LOOKS)
            try:
                self._measure()
                if is_last or time.monotonic() >= due or len(self._answers) >= MAX_ANSWERS:
                    due = time.monotonic() + self._interval
                    self._write()
            except Exception:  # noqa: BLE001
                # A defect must not end monitoring, let alone the server; the log has its traceback.
                self._log.write("monitor_failed", traceback=traceback.format_exc())
            if is_last:
                return

    def _measure(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._waiting_bytes = 0
        for part in parts_of(waiting):
            answers = answers_of(part, self._model)
            sketch = merged(self._sketch, sketch_of_values(self._reference, inputs_of(part, self._model), answers))
            sample = sampled(self._sketch.sample, self._rows, self._sketch.n_images, answers.sample, self._random)
            self._sketch = Sketch(sketch.n_images, sketch.columns, sketch.class_counts, sample)
            if self._keeps_answers:
                self._keep(part)

    def _keep(self, part: Sequence[Seen]) -> None:
        probabilities = softmax(np.concatenate([seen.outputs for seen in part]))
        names = [(seen.id.decode(), number) for seen in part for number in range(len(seen.pixels))]
        classes = [self._reference.classes[index] for index in probabilities.argmax(axis=1).tolist()]
        confidences = probabilities.max(axis=1).round(6).tolist()
        for (name, number), label, confidence in zip(names, classes, confidences, strict=True):
            self._answers.append((name, number, label, confidence))
        if (too_many := len(self._answers) - 2 * MAX_ANSWERS) > 0:
            del self._answers[:too_many]
            self._metrics.lost_monitor_answers.inc(too_many)

    def _write(self) -> None:
        """Write what there is to write; what cannot be written is kept for the next time."""
        if not self._sketch.n_images and not self._answers:
            return
        ended = datetime.now(UTC)
        name = f"{ended:%Y%m%dT%H%M%SZ}-{self._process}-{self._number:06}"
        facts = {
            "model": self._model.name,
            "version": self._model.version,
            "reference": self._reference_digest,
            "saturates": self._model.saturates,
            "process": self._process,
        }
        try:
            if not self._has_written_reference:
                self._destination.write(f"reference-{self._reference_digest}.json", self._model.reference)
                self._has_written_reference = True
            if self._answers:
                self._destination.write(f"answers-{name}.csv", self._answers_file())
                self._answers.clear()
            if self._sketch.n_images:
                times = {"started": self._started.isoformat(), "ended": ended.isoformat()}
                fields = {**facts, **times, "lost": self._lost, **self._sketch.to_dict()}
                self._destination.write(f"sketch-{name}.json", json.dumps(fields, sort_keys=True).encode())
        except Exception as error:  # noqa: BLE001
            # Disk full, no network, no permission any more: said once, counted always, and tried again.
            self._metrics.failed_monitor_writes.inc()
            if not self._fails:
                self._log.write("monitor_cannot_write", error=f"{type(error).__name__}: {error}")
            self._fails = True
            return
        if self._fails:
            self._log.write("monitor_writes_again")
        self._fails = False
        self._number += 1
        self._sketch, self._started, self._lost = empty_sketch(self._reference), ended, 0

    def _answers_file(self) -> bytes:
        """Return the kept answers as CSV, each with the model that gave it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*ANSWER_COLUMNS, "model", "version", "reference"))
        facts = (self._model.name, self._model.version, self._reference_digest)
        writer.writerows((*answer, *facts) for answer in self._answers)
        return text.getvalue().encode()


def sampled(
    sample: NDArray[np.float32],
    most: int,
    n_before: int,
    answers: NDArray[np.float32],
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return a sample of at most so many rows with further answers considered: each is as likely to be in it.

    sample: of the `n_before` answers that were considered before, float32 (n_sample, n_classes).
    Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """
    rows = list(sample)
    for number, row in enumerate(answers, n_before):
        if len(rows) < most:
            rows.append(row)
        elif (place := int(generator.integers(number + 1))) < most:
            rows[place] = row
    return np.array(rows, np.float32).reshape(-1, answers.shape[1])


def monitor_of(model: ServedModel, settings: Settings, log: JsonLog, metrics: Metrics) -> Monitor | None:
    """Return what notes the answers of a server; None if it was not asked for, or if the bundle has no reference.

    Raises KingletError if answers are to be kept that are no classes.
    """
    if not settings.monitor:
        return None
    if settings.monitor_answers == "all" and not WATCHED[model.predictor.problem].has_probabilities:
        raise KingletError(
            f"monitor_answers is all, and {model.name} answers no single class to an image: labels to come are "
            "compared with the answers of classifiers only.",
            "Leave out --monitor-answers: the sketches need none.",
        )
    if not model.reference:
        log.write(
            "monitor_off",
            reason="The bundle has no reference.json, it is from before there was monitoring: "
            "make it anew with `dvc repro bundle`.",
        )
        return None
    return Monitor(model, settings, log, metrics)
