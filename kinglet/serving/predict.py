"""/predict: encoded images in, what the model says of them out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson

from kinglet.serving import clip_answers
from kinglet.serving.bodies import BodyReader, Upload, parts_of
from kinglet.serving.inference import Answer, Inference
from kinglet.serving.messages import Request, RequestIds, Response
from kinglet.serving.monitoring import Monitor
from kinglet.serving.problems import problem_of
from kinglet.serving.records import Records
from kinglet.serving.refusals import RefusedError
from kinglet.serving.seen import seen_clips, seen_images

PREDICT = "/predict"
# A body of one image; without a type the bytes tell by themselves.
IMAGE_TYPES = (b"", b"image/jpeg", b"image/png", b"image/webp", b"application/octet-stream")
# What is taken, of images and of clips.
WANTED = {False: "JPEG, PNG or WebP image", True: "video, or of one frame as JPEG, PNG or WebP image"}


class PredictEndpoint:
    """Answers requests to /predict: as a task of the server, or at once where they arrive."""

    def __init__(
        self, inference: Inference, bodies: BodyReader, monitor: Monitor | None, ids: RequestIds, records: Records
    ) -> None:
        self._inference, self._bodies, self._monitor = inference, bodies, monitor
        self._ids, self._records = ids, records
        self._model, self._settings = inference.model, inference.settings
        self._problem = problem_of(inference.model)
        # Whether there are requests that are answered at once.
        self.is_fast = inference.is_inline and not self._problem.takes_time and self._problem.picture is None

    def answer_at_once(self, request: Request, body: bytes) -> Response | None:
        """Answer a request with the whole body of one small image, without waiting for anything, and record it.

        Returns None for all that takes longer, is to be refused or fails: that is for `answer`, and the request is as
        it was.
        """
        if (
            not self.is_fast
            or request.headers.get(b"content-type", b"") not in IMAGE_TYPES
            or b"content-encoding" in request.headers
            or not self._bodies.has_room(len(body))
        ):
            return None
        try:
            asked = self._problem.read_query(request.query)
            uploads = [Upload("", body)]
            answer = self._inference.answer_at_once(uploads)
            if answer is None:
                return None
            found = self._problem.predictions(self._model, answer, asked)
            content = orjson.dumps(self._fields(uploads, answer, found, request.started))
        except Exception:  # noqa: BLE001
            # Whatever is wrong with the request, or with the server, is found by `answer` too, and said there.
            return None
        self._ids.name(request)
        self._note(request, answer)
        self._records.write_soon(request, PREDICT)
        return Response(content)

    async def answer(self, request: Request) -> Response:
        """Answer with the classes of one image or of several, with the objects in them, or with their masks."""
        if self._problem.of_clips:
            return await self._answer_clips(request)
        query, picture = request.query, self._problem.picture
        asked = self._problem.read_query(query)
        uploads = await self._uploads(request)
        answer = await self._inference.answer(uploads)
        self._note(request, answer)
        if picture is not None and picture.wanted(query, request.headers.get(b"accept", b"")):
            body = await self._inference.in_pool(lambda: picture.make(self._model, answer))
            return Response(body, ((b"content-type", picture.media_type.encode()),))
        if self._problem.takes_time:
            found = await self._inference.in_pool(lambda: self._problem.predictions(self._model, answer, asked))
        else:
            found = self._problem.predictions(self._model, answer, asked)
        return Response(orjson.dumps(self._fields(uploads, answer, found, request.started)))

    async def _answer_clips(self, request: Request) -> Response:
        """Answer with the classes of a video's clips, or of the frames of one clip."""
        asked = self._problem.read_query(request.query)
        uploads = await self._uploads(request)
        answered = await self._inference.in_pool(
            lambda: clip_answers.answer(self._model, self._inference, uploads, self._settings)
        )
        request.facts["clips"] = len(answered.clips)
        if self._monitor is not None:
            self._monitor.take(seen_clips(request.id, answered))
        predictions = self._problem.predictions(self._model, answered, asked)
        return Response(orjson.dumps(self._timed(predictions, answered, request.started)))

    def _note(self, request: Request, answer: Answer) -> None:
        """Note the images of a request for the log, and for monitoring if there is any."""
        request.facts["images"] = len(answer.images)
        if self._monitor is not None:
            self._monitor.take(seen_images(self._model, request.id, answer))

    async def _uploads(self, request: Request) -> list[Upload]:
        """Return the images of a request, at least one."""
        content_type = request.headers.get(b"content-type", b"")
        kind = content_type.partition(b";")[0].strip().lower()
        videos = self._problem.media_types
        if kind not in IMAGE_TYPES and kind != b"multipart/form-data" and kind.decode("latin-1") not in videos:
            raise RefusedError(
                "unsupported_type",
                f"Content-Type is {kind.decode('latin-1')[:80]!r}; send {', '.join([*videos, 'image/jpeg'])}, "
                "image/png, image/webp, application/octet-stream or multipart/form-data.",
                closes=True,
            )
        body = await self._bodies.take(request)
        if kind == b"multipart/form-data":
            most = self._settings.max_frames if self._problem.of_clips else self._settings.max_images
            return parts_of(body, content_type, most)
        if not body:
            wanted = WANTED[self._problem.of_clips]
            raise RefusedError("empty_body", f"The body is empty; send the bytes of a {wanted}.")
        return [Upload("", body)]

    def _fields(
        self, uploads: Sequence[Upload], answer: Answer, found: Sequence[dict[str, Any]], started: float
    ) -> dict[str, Any]:
        predictions = [
            {
                **of_image,
                "image": {"name": upload.name, "format": facts.format, "width": facts.width, "height": facts.height},
            }
            for upload, facts, of_image in zip(uploads, answer.images, found, strict=True)
        ]
        return self._timed(predictions, answer, started)

    def _timed(
        self, predictions: Sequence[dict[str, Any]], answer: Answer | clip_answers.Answered, started: float
    ) -> dict[str, Any]:
        return {
            "model": self._model.name,
            "version": self._model.version,
            "predictions": predictions,
            "time_ms": {
                "decode": round(1000 * answer.decode_seconds, 3),
                "compute": round(1000 * answer.compute_seconds, 3),
                "total": round(1000 * (time.perf_counter() - started), 3),
            },
        }
