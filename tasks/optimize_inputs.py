"""What `kinglet optimize` works on: the given model in Kinglet's form, and the images as it takes them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import onnx

from kinglet.adoption import facts_of
from kinglet.adoption.agreement import compare_answers
from kinglet.compression.simplification import simplify
from kinglet.data.classes import number_labels, read_class_names
from kinglet.models.onnx_graph import add_metadata, read_metadata
from kinglet.runtime.preprocessing import Preprocessing
from tasks.held_out import HeldOut
from tasks.labelled_images import LabelledImages, divide, open_labelled_images
from tasks.optimize_options import RESULT, Options
from tasks.optimize_preprocessing import Scale, find_scale, oriented


@dataclass(frozen=True)
class Given:
    """The model that was given, in Kinglet's form, and the images as it takes them.

    parts: rows and labels for calibration, validation and test.
    """

    name: str
    model: onnx.ModelProto
    preprocessing: Preprocessing
    scale: Scale
    classes: list[str]
    images: LabelledImages
    parts: dict[str, HeldOut]


def examine(adopted: onnx.ModelProto, packed_file: Path, options: Options) -> Given:
    """Return the model with all that is to be known of it, and its images.

    adopted: as `adopt` returns it. packed_file: where the images are packed.
    """
    name, facts, metadata = str(options.model), facts_of(adopted), read_metadata(adopted)
    fit = options.fit or metadata.get("preprocessing", {}).get("fit", "stretch")
    names = read_class_names(options.classes) if options.classes else metadata.get("classes")
    images = open_labelled_images(
        options.data, packed_file, facts.input_size, facts.channels, fit, options.max_images, options.seed
    )
    tell_what_is_used(images)
    classes, labels = number_labels(images.labels.tolist(), facts.n_classes, names, name)
    parts = {
        part: HeldOut(images.rows[places], images.paths[places].tolist(), labels[places])
        for part, places in divide(images, options.seed).items()
    }
    scale = find_scale(adopted, images.packed, [parts["validation"], parts["calibration"]], fit, options)
    mean, std = scale.normalization.mean, scale.normalization.std
    preprocessing = Preprocessing(facts.input_size, facts.channels, fit, mean, std)
    turned = oriented(adopted, scale.normalization)
    model = simplify(turned)
    compare_answers(turned, model, name, pixels_last=False, softmax=False, halves=False)
    add_metadata(model, {"preprocessing": preprocessing.to_dict(), "classes": classes})
    return Given(options.model.stem, model, preprocessing, scale, classes, images, parts)


def tell_what_is_used(images: LabelledImages) -> None:
    """Print how many images are used and which are left out, where that is not all."""
    n_read = len(images.rows) + len(images.left_out)
    if n_read < images.n_files:
        tell(f"note: {n_read:,} of {images.n_files:,} images are read; --max-images changes that")
    if images.left_out:
        first = images.left_out[0]
        tell(
            f"note: {len(images.left_out)} files are left out, listed in {RESULT}: {first['path']} ({first['reason']})"
        )


def tell(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr)
