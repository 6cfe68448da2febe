"""What a server of a segmenter answers: the class of every pixel, in the image's own pixels, and each class's share."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kinglet.errors import KingletError
from kinglet.runtime.segmentation import Mask
from kinglet.runtime.segmentation_predictor import SegmentationPredictor
from kinglet.runtime.sessions import OUTPUT_NAME
from kinglet.runtime.tiles import put_together
from kinglet.serving.class_answers import PROBABILITY
from kinglet.serving.inference import Answer
from kinglet.serving.refusals import RefusedError
from kinglet.serving.run_lengths import as_text, run_lengths
from kinglet.serving.served_model import ServedModel

# What /predict may be asked for: JSON with the mask as PNG or as run lengths, or the PNG alone.
JSON, RUN_LENGTHS, PICTURE = FORMATS = ("json", "rle", "png")
PNG_TYPE = "image/png"
# Masks compress well already at a low level, which takes a third of the time.
COMPRESSION = 3


def does(classes: Sequence[str]) -> str:
    """Return what the model does, as the predicate of a sentence."""
    return f"Says of every pixel which of {len(classes)} {'class' if len(classes) == 1 else 'classes'} it belongs to"


def read_query(query: bytes) -> str:
    """Return the format that is asked for, JSON if none is; raises RefusedError for an unknown one."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("format", [JSON])
    if values[-1] not in FORMATS:
        raise RefusedError("bad_request", f"format is {values[-1][:40]!r}; it is one of {', '.join(FORMATS)}.")
    return values[-1]


def wants_picture(query: bytes, accept: bytes) -> bool:
    """Return whether the mask alone is asked for, as PNG: by the query, or else by the header Accept."""
    if b"format=" in query:
        return read_query(query) == PICTURE
    types = [part.partition(";")[0].strip().lower() for part in accept.decode("latin-1").split(",")]
    return PNG_TYPE in types and "application/json" not in types


def picture(model: ServedModel, answer: Answer) -> bytes:
    """Return the mask of the one image of a request as PNG; raises RefusedError for several."""
    if len(answer.images) != 1:
        raise RefusedError(
            "bad_request", f"A PNG is the answer to one image, and the request has {len(answer.images)}; ask for JSON."
        )
    return png_of(masks_of(model, answer)[0])


def predictions(model: ServedModel, answer: Answer, wanted: str) -> list[dict[str, Any]]:
    """Return the answer to every image, without its facts."""
    segmenter = segmenter_of(model)
    return [
        {"classes": shares(segmenter, mask), "mask": {RUN_LENGTHS: regions(segmenter, mask)}}
        if wanted == RUN_LENGTHS
        else {"classes": shares(segmenter, mask), "mask": {PICTURE: base64.b64encode(png_of(mask)).decode()}}
        for mask in masks_of(model, answer)
    ]


def masks_of(model: ServedModel, answer: Answer) -> list[Mask]:
    """Return the mask of every image of a request."""
    segmenter = segmenter_of(model)
    masks, start = [], 0
    for facts in answer.images:
        tiles = segmenter.tiles(facts.width, facts.height)
        own = answer.outputs[start : start + len(tiles)]
        parts = segmenter.decode(own, [segmenter.placement(tile.width, tile.height) for tile in tiles])
        masks.append(put_together(tiles, parts))
        start += len(tiles)
    return masks


def shares(segmenter: SegmentationPredictor, mask: Mask) -> list[dict[str, Any]]:
    """Return the classes that a mask shows with their shares of the pixels, the largest first."""
    found = [
        {"label": label, "index": index, "share": round(share, 6)}
        for index, (label, share) in enumerate(segmenter.shares(mask).items())
        if share
    ]
    return sorted(found, key=lambda item: -float(str(item["share"])))


def regions(segmenter: SegmentationPredictor, mask: Mask) -> list[dict[str, Any]]:
    """Return the region of every class that a mask shows, as COCO writes it."""
    return [
        {
            "label": segmenter.classes[index],
            "index": index,
            "size": list(mask.shape),
            "counts": as_text(run_lengths(mask == index)),
        }
        for index in np.unique(mask).tolist()
    ]


def png_of(mask: Mask) -> bytes:
    """Return a mask as an 8-bit gray PNG, of every pixel the number of its class."""
    written = io.BytesIO()
    Image.fromarray(mask).save(written, "PNG", compress_level=COMPRESSION)
    return written.getvalue()


def segmenter_of(model: ServedModel) -> SegmentationPredictor:
    """Return the predictor of a model that is a segmenter."""
    if not isinstance(model.predictor, SegmentationPredictor):
        raise KingletError(f"{model.name} is no segmenter.")
    return model.predictor


def tensors(outputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return what the model gives, by the names of the Open Inference Protocol."""
    return {OUTPUT_NAME: outputs}


def shapes(model: ServedModel) -> dict[str, list[int]]:
    """Return the shapes of `tensors`, -1 for the batch and for height and width, which follow from the model."""
    return {OUTPUT_NAME: [-1, len(model.predictor.classes), -1, -1]}


def parameters() -> list[dict[str, Any]]:
    """Return what /predict may be asked beside the image, for the OpenAPI document."""
    only = {
        "name": "format",
        "in": "query",
        "description": (
            "json: the mask as PNG in base64; rle: the region of every class as COCO's run lengths; png: the mask of "
            "one image alone, as the header Accept: image/png asks for it too."
        ),
        "schema": {"type": "string", "enum": list(FORMATS), "default": JSON},
    }
    return [only]


def prediction_schema(model: ServedModel) -> dict[str, Any]:
    """Return the fields of one prediction, without the image's facts, for the OpenAPI document."""
    classes = model.predictor.classes
    label = {"type": "string", "enum": classes}
    index = {"type": "integer", "minimum": 0, "maximum": len(classes) - 1}
    share = {"label": label, "index": index, "share": PROBABILITY}
    edge = {"type": "integer", "minimum": 1}
    region = {
        "label": label,
        "index": index,
        "size": {"type": "array", "items": edge, "minItems": 2, "maxItems": 2, "description": "Height and width."},
        "counts": {"type": "string", "description": "COCO's run lengths, column by column, packed."},
    }
    each, regions = (
        {"type": "array", "minItems": 1, "items": {"type": "object", "properties": found, "required": list(found)}}
        for found in (share, region)
    )
    png = {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": PNG_TYPE,
        "description": "8-bit gray, as high and wide as the image turned as its EXIF data say; a pixel's index.",
    }
    mask = {
        "type": "object",
        "properties": {PICTURE: png, RUN_LENGTHS: regions},
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    return {"classes": each, "mask": mask}
