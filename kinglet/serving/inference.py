"""From the bytes of images to what the model gives: a few workers, a bounded queue before them, batches if asked for.

A network that answers within a fraction of a millisecond is done sooner than it can be handed to another thread. So
small images are computed where they arrive, if the model is that fast; all others go to a pool of threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.decoding import ImageFacts, TooManyPixelsError, UndecodableImageError, read_size, sniff
from kinglet.runtime.preprocessing import InputTensor, model_input
from kinglet.serving.bodies import Upload
from kinglet.serving.metrics import Metrics
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP")
# Images computed in one call of the runtime at most, so that memory does not follow the request.
CHUNK = 32
# What is computed where it arrives: an image of at most so many bytes and pixels, by a model that is as fast.
INLINE_BYTES, INLINE_PIXELS, INLINE_MS = 65_536, 65_536, 1.0
# A progressive JPEG is gone through once per scan. Encoders make about ten; thousands are an attack.
START_OF_SCAN, USUAL_SCANS = b"\xff\xda", 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What the model gives for images, the facts of each, and where the time went, in seconds; n is the number of
    images, or of all their tiles.

    outputs: float32, the first axis of length n; logits of a classifier or a segmenter, logits and boxes of a
    detector side by side.
    squares: the pixels that the model saw, uint8 (n, input_size, input_size, channels).
    """

    outputs: NDArray[np.float32]
    squares: NDArray[np.uint8]
    images: list[ImageFacts]
    decode_seconds: float
    compute_seconds: float


class Inference:
    """Computes what requests ask for; used from one event loop."""

    def __init__(self, model: ServedModel, settings: Settings, metrics: Metrics) -> None:
        self.model, self.settings = model, settings
        self._metrics = metrics
        self._max_pixels = settings.max_pixels
        self._timeout = settings.timeout
        self._workers = settings.workers_in_all
        self._most = self._workers + settings.queue
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="inference")
        self._pending, self._lock = 0, threading.Lock()
        # Running average of what one task of the pool takes, in seconds: what a refused client is told to wait for.
        self._seconds_each = model.compute_ms / 1000
        # The frames of a clip follow each other: those of two requests are never computed together, nor in pieces.
        self._of_clips = model.predictor.problem == bundles.VIDEO
        if self._of_clips and settings.batch_size > 1:
            raise KingletError(
                f"{model.name} answers clips frame by frame, and batch_size is {settings.batch_size}.",
                "Serve it without --batch-size.",
            )
        self._batcher = (
            Batcher(self.compute_now, self._submit, settings.batch_size, settings.batch_wait_ms / 1000)
            if settings.batch_size > 1
            else None
        )
        self.is_inline = self._batcher is None and model.compute_ms < INLINE_MS

    @property
    def pending(self) -> int:
        """Tasks that wait for a worker or are being computed."""
        return self._pending

    def close(self) -> None:
        """Let the workers end with what they have begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, uploads: Sequence[Upload]) -> Answer:
        """Return the answer to encoded images.

        Raises RefusedError that names the first which cannot be used, or if too many wait or it took too long.
        """
        answer = self.answer_at_once(uploads)
        if answer is not None:
            return answer
        if self._batcher is None:
            return await self.in_pool(lambda: self._answer_now(uploads, self._max_pixels))
        started = time.perf_counter()
        squares, tensors, images = await self.in_pool(lambda: self.decode(uploads, self._max_pixels))
        decoded = time.perf_counter()
        outputs = await self._in_time(self._batcher.add(tensors))
        return Answer(outputs, squares, images, decoded - started, time.perf_counter() - decoded)

    def answer_at_once(self, uploads: Sequence[Upload]) -> Answer | None:
        """Return the answer to one small image by a fast model, computed here and now; None if it is for the pool.

        Raises RefusedError if the image cannot be used.
        """
        if not self.is_inline or len(uploads) != 1 or len(uploads[0].content) > INLINE_BYTES:
            return None
        try:
            return self._answer_now(uploads, INLINE_PIXELS)
        except TooManyPixelsError:
            return None  # the pool has the limit that was set

    async def compute(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return what the model gives for prepared inputs, as it takes them; raises RefusedError."""
        if self.is_inline and len(tensors) == 1:
            return self.compute_now(tensors)
        if self._batcher is not None:
            return await self._in_time(self._batcher.add(tensors))
        return await self.in_pool(lambda: self.compute_now(tensors))

    def _answer_now(self, uploads: Sequence[Upload], max_pixels: int) -> Answer:
        started = time.perf_counter()
        squares, tensors, images = self.decode(uploads, max_pixels)
        decoded = time.perf_counter()
        outputs = self.compute_now(tensors)
        return Answer(outputs, squares, images, decoded - started, time.perf_counter() - decoded)

    def decode(
        self, uploads: Sequence[Upload], max_pixels: int
    ) -> tuple[NDArray[np.uint8], InputTensor, list[ImageFacts]]:
        """Return the images as the model sees them, as its input, and their facts; one at a time is in memory whole.

        Raises RefusedError that names the first which cannot be used; TooManyPixelsError for more than `max_pixels`
        where the server allows more.
        """
        squares, images = [], []
        for number, upload in enumerate(uploads, 1):
            called = f"Image {number}{f' ({upload.name[:80]!r})' if upload.name else ''}" if len(uploads) > 1 else "It"
            refuse_what_is_no_image(upload.content, called, self._max_pixels)
            try:
                found, facts = self.model.squares_of(upload.content, max_pixels)
            except TooManyPixelsError as error:
                if max_pixels < self._max_pixels:
                    raise
                raise RefusedError("image_too_large", f"{called} is {error}.") from None
            except UndecodableImageError as error:
                raise RefusedError("undecodable_image", f"{called} cannot be decoded: {error}.") from None
            squares.append(found)
            images.append(facts)
        stacked = squares[0] if len(squares) == 1 else np.concatenate(squares)
        return stacked, model_input(stacked, self.model.predictor.preprocessing), images

    def compute_now(self, tensors: InputTensor) -> NDArray[np.float32]:
        """Return what the model gives for prepared inputs, as it takes them, in the thread that asks."""
        parts = []
        step = len(tensors) if self._of_clips else CHUNK
        for start in range(0, len(tensors), step):
            chunk = tensors[start : start + step]
            self._metrics.note_batch(len(chunk))
            parts.append(self.model.predictor.outputs(chunk))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def in_pool(self, work: Callable[[], Result]) -> Result:
        """Return what `work` does, done by a worker; raises RefusedError if too many wait or it takes too long."""
        return await self._in_time(asyncio.wrap_future(self._submit(work)))

    async def _in_time(self, result: asyncio.Future[Result]) -> Result:
        try:
            # What has begun cannot be stopped and keeps its place; what has not is taken out of the queue.
            return await asyncio.wait_for(result, self._timeout)
        except TimeoutError:
            raise RefusedError(
                "too_slow", f"There was no answer within {self._timeout:g} s.", retry_after=self._wait()
            ) from None

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Queue work for the pool; raises RefusedError if too much waits already."""
        with self._lock:
            if self._pending >= self._most:
                raise RefusedError("busy", f"{self._pending} requests are waiting already.", retry_after=self._wait())
            self._pending += 1
        future = self._pool.submit(self._timed, work)
        future.add_done_callback(self._count_down)
        return future

    def _timed(self, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds_each += 0.1 * (time.perf_counter() - started - self._seconds_each)

    def _count_down(self, _: Future[Result]) -> None:
        with self._lock:
            self._pending -= 1

    def _wait(self) -> int:
        """Return the whole seconds after which the queue is likely to have emptied, at least 1."""
        return max(1, math.ceil(self._pending * self._seconds_each / self._workers))


class Batcher:
    """Gathers inputs of several requests for one call of the runtime."""

    def __init__(
        self,
        compute: Callable[[InputTensor], NDArray[np.float32]],
        submit: Callable[[Callable[[], NDArray[np.float32]]], Future[NDArray[np.float32]]],
        size: int,
        seconds: float,
    ) -> None:
        """compute: what the model gives for a batch. submit: queues work. size: images. seconds: one waits."""
        self._compute, self._submit = compute, submit
        self._size, self._seconds = size, seconds
        self._waiting: list[tuple[InputTensor, asyncio.Future[NDArray[np.float32]]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, tensors: InputTensor) -> asyncio.Future[NDArray[np.float32]]:
        """Return what is to come of these inputs, n at least 1."""
        loop = asyncio.get_running_loop()
        if self._waiting and self._images() + len(tensors) > self._size:
            self._flush()
        future: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        self._waiting.append((tensors, future))
        if self._images() >= self._size:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._seconds, self._flush)
        return future

    def _images(self) -> int:
        return sum(len(tensors) for tensors, _ in self._waiting)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = [pair for pair in self._waiting if not pair[1].done()], []
        if not waiting:
            return
        try:
            batch = asyncio.wrap_future(
                self._submit(lambda: self._compute(np.concatenate([pair[0] for pair in waiting])))
            )
        except RefusedError as error:
            for _, future in waiting:
                future.set_exception(error)
            return
        batch.add_done_callback(lambda done: share_out(done, waiting))


def share_out(
    batch: asyncio.Future[NDArray[np.float32]],
    waiting: list[tuple[InputTensor, asyncio.Future[NDArray[np.float32]]]],
) -> None:
    """Give every request its rows of a batch, or its error."""
    start = 0
    for tensors, future in waiting:
        rows = slice(start, start + len(tensors))
        start = rows.stop
        if future.done():
            continue  # given up meanwhile
        if batch.cancelled():
            future.cancel()
        elif (error := batch.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(batch.result()[rows])


def refuse_what_is_no_image(content: bytes, called: str, max_pixels: int) -> None:
    """Raise RefusedError for bytes that do not begin as an image of a format that is served, or that are a trap.

    called: how the sentence begins. max_pixels: the largest image.
    """
    if not content:
        raise RefusedError("empty_body", f"{called} is empty (0 bytes).")
    found = sniff(content)
    if found not in FORMATS:
        kind = f"a {found} image" if found else "no image"
        raise RefusedError("unsupported_type", f"{called} is {kind}; JPEG, PNG and WebP are served.")
    if found == "JPEG" and (scans := content.count(START_OF_SCAN)) > USUAL_SCANS:
        refuse_costly_scans(content, scans, called, max_pixels)


def refuse_costly_scans(content: bytes, scans: int, called: str, max_pixels: int) -> None:
    """Raise RefusedError for a JPEG whose many scans cost more than a large image of usual ones."""
    try:
        width, height = read_size(content, max_pixels)
    except UndecodableImageError:
        return  # said by the decoder
    if width * height * scans > USUAL_SCANS * max_pixels:
        raise RefusedError("image_too_large", f"{called} is a JPEG of {width} x {height} pixels in {scans} scans.")
