"""What a server of a network over clips answers: the classes of a video's clips, or of the frames of one clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from kinglet.errors import KingletError
from kinglet.runtime.clips import ClipPredictor, clips_in, require_av
from kinglet.runtime.preprocessing import InputTensor, prepare, square_of
from kinglet.runtime.sessions import softmax
from kinglet.runtime.videos import Video
from kinglet.runtime.watched_answers import middle_of
from kinglet.serving import class_answers
from kinglet.serving.bodies import Upload
from kinglet.serving.class_answers import PROBABILITY
from kinglet.serving.inference import Inference
from kinglet.serving.refusals import RefusedError
from kinglet.serving.served_model import ServedModel
from kinglet.serving.settings import Settings

VIDEO_TYPES = ("video/mp4", "video/quicktime", "video/x-msvideo", "video/webm", "video/x-matroska", "video/mpeg")
# FFmpeg's name of a format, and ours. Only these are opened: others are lists that name files to be opened in turn.
FORMATS = {"mov": "MP4", "avi": "AVI", "matroska": "Matroska", "mpeg": "MPEG"}
# What sentences call a video that came in a body.
CALLED = Path("The video")


@dataclass(frozen=True)
class Asked:
    """What the query of /predict asks for: so many classes, and whether those after every frame too."""

    top: int
    per_frame: bool


@dataclass(frozen=True)
class AnsweredClip:
    """A clip and what the model gives for it.

    logits: after each frame, float32 (n_frames, n_classes). middle: the frame in its middle as the model saw it, uint8
    (size, size, channels). facts: name, format, width and height of what was sent. seconds: of its first and last frame
    in a video; None for frames that were sent one by one.
    """

    logits: NDArray[np.float32]
    middle: NDArray[np.uint8]
    facts: dict[str, Any]
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Answered:
    """The clips of a request, and where the time went, in seconds."""

    clips: list[AnsweredClip]
    decode_seconds: float
    compute_seconds: float


def does(classes: Sequence[str]) -> str:
    """Return what the model does, as the predicate of a sentence."""
    return f"Sorts a clip into one of {len(classes)} {'class' if len(classes) == 1 else 'classes'}"


def read_query(query: bytes) -> Asked:
    """Return what is asked for; raises RefusedError for a value that is none."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("per_frame", ["false"])
    if values[-1] not in ("true", "false"):
        raise RefusedError("bad_request", f"per_frame is {values[-1][:40]!r}; it is true or false.")
    return Asked(class_answers.read_query(query), values[-1] == "true")


def answer(model: ServedModel, inference: Inference, uploads: Sequence[Upload], settings: Settings) -> Answered:
    """Return the answers to a video, or to the frames of one clip in the order in which they were sent.

    Raises RefusedError that says what cannot be used.
    """
    if len(uploads) == 1 and (form := format_of(uploads[0].content)):
        return answer_video(model, inference, uploads[0], form, settings)
    video = next((number for number, upload in enumerate(uploads, 1) if format_of(upload.content)), 0)
    if video:
        raise RefusedError("bad_request", f"Part {video} of {len(uploads)} is a video; send one video, or images.")
    started = time.perf_counter()
    squares, tensors, images = inference.decode(uploads, settings.max_pixels)
    decoded = time.perf_counter()
    first = images[0]
    facts = {"name": uploads[0].name, "format": first.format, "width": first.width, "height": first.height}
    clip = AnsweredClip(inference.compute_now(tensors), squares[middle_of(len(squares))], facts)
    return Answered([clip], decoded - started, time.perf_counter() - decoded)


def answer_video(model: ServedModel, inference: Inference, upload: Upload, form: str, settings: Settings) -> Answered:
    """Return the answers to the clips of a video, cut as a data set's are. form: a key of FORMATS."""
    predictor, started, compute_seconds = predictor_of(model), time.perf_counter(), 0.0
    try:
        require_av()
    except KingletError as error:
        raise RefusedError("no_video_decoder", f"{error.message} {error.hint}") from None
    found = []
    try:
        video = Video(CALLED, upload.content, form)
        width, height = video.stored_size
        refuse_too_large(width, height, len(video), settings)
        for clip in clips_in(video, predictor.frames, predictor.frames_per_second):
            if time.perf_counter() - started > settings.timeout:
                # Nobody waits for the answer any more: the worker is free for others.
                raise RefusedError("too_slow", f"There was no answer within {settings.timeout:g} s.", retry_after=1)
            height, width = clip.frames[0].shape[:2]
            tensors: InputTensor = prepare(clip.frames, predictor.preprocessing)
            computing = time.perf_counter()
            logits = inference.compute_now(tensors)
            compute_seconds += time.perf_counter() - computing
            facts = {"name": upload.name, "format": FORMATS[form], "width": width, "height": height}
            middle = square_of(clip.frames[middle_of(len(clip.frames))], predictor.preprocessing)
            found.append(AnsweredClip(logits, middle, facts, clip.seconds))
    except KingletError as error:
        # What would help whoever has the file on their disk helps no client.
        raise RefusedError("undecodable_video", error.message) from None
    return Answered(found, time.perf_counter() - started - compute_seconds, compute_seconds)


def refuse_too_large(width: int, height: int, n_frames: int, settings: Settings) -> None:
    """Raise RefusedError for a video of more pixels or frames than the server takes; nothing of it is decoded yet."""
    if width * height > settings.max_pixels:
        raise RefusedError(
            "image_too_large",
            f"The frames of the video have {width} x {height} pixels, at most {settings.max_pixels} are allowed.",
        )
    if n_frames > settings.max_frames:
        raise RefusedError(
            "too_many_frames", f"The video has {n_frames:,} frames, at most {settings.max_frames:,} are allowed."
        )


def format_of(content: bytes) -> str:
    """Return the format of a video that the first bytes announce, a key of FORMATS; empty for anything else."""
    if content[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    if content[:4] == b"RIFF" and content[8:11] == b"AVI":
        return "avi"
    return {b"\x1aE\xdf\xa3": "matroska", b"\x00\x00\x01\xba": "mpeg"}.get(content[:4], "")


def predictions(model: ServedModel, answered: Answered, asked: Asked) -> list[dict[str, Any]]:
    """Return the answer to every clip, with what was sent."""
    classes = model.predictor.classes
    found = []
    for clip in answered.clips:
        after = softmax(clip.logits)
        item: dict[str, Any] = {**class_answers.best_of(after[-1].tolist(), classes, asked.top), "frames": len(after)}
        if clip.seconds is not None:
            item["seconds"] = [round(moment, 6) for moment in clip.seconds]
        if asked.per_frame:
            item["per_frame"] = [
                dict(zip(classes, np.round(row.astype(float), 6).tolist(), strict=True)) for row in after
            ]
        found.append({**item, "image": clip.facts})
    return found


def predictor_of(model: ServedModel) -> ClipPredictor:
    """Return the predictor of a model that answers clips."""
    if not isinstance(model.predictor, ClipPredictor):
        raise KingletError(f"{model.name} is no network over clips.")
    return model.predictor


def parameters() -> list[dict[str, Any]]:
    """Return what /predict may be asked beside the clip, for the OpenAPI document."""
    per_frame = {
        "name": "per_frame",
        "in": "query",
        "description": "Whether to answer with the probabilities after every frame of a clip, too.",
        "schema": {"type": "boolean", "default": False},
    }
    return [*class_answers.parameters(), per_frame]


def prediction_schema(model: ServedModel) -> dict[str, Any]:
    """Return the fields of one prediction, without what was sent, for the OpenAPI document."""
    return {**class_answers.prediction_schema(model), "frames": {"type": "integer", "minimum": 1}}


def optional_schema(model: ServedModel) -> dict[str, Any]:
    """Return the fields that only some predictions have."""
    moment = {"type": "number", "minimum": 0}
    of_frame = {
        "type": "object",
        "properties": dict.fromkeys(model.predictor.classes, PROBABILITY),
        "required": list(model.predictor.classes),
    }
    return {
        "seconds": {
            "type": "array",
            "items": moment,
            "minItems": 2,
            "maxItems": 2,
            "description": "When the first and the last frame of the clip are shown in the video.",
        },
        "per_frame": {"type": "array", "items": of_frame, "minItems": 1},
    }
