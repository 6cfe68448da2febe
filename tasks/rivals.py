"""The rivals of pruned models: dense networks that take no longer, trained as long from the same teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kinglet.compression.dense import largest_as_fast, narrower, widest_as_fast
from kinglet.errors import KingletError
from kinglet.models.residual_cnn import ResidualCnn, random_residual_cnn
from kinglet.training.loop import ImageSet, Recipe
from tasks.artifacts import PRUNE, TEACHER, as_fast_as_pruned, read_input_sizes
from tasks.compression_settings import Prune
from tasks.distillation import train_from_teacher
from tasks.models import image_set, load_model, read_manifest, sample_batches, taught_images
from tasks.parameters import Parameters
from tasks.recipes import pruned_recipe, student_recipe
from tasks.untrained_latency import CALIBRATION_IMAGES, FP32, untrained_latencies
from tasks.whole_model import HELD_OUT_BATCHES, IMPORTANCE_BATCHES, Whole

# What the rivals are compared in: their int8 files come later, from a step that may choose another way for each.
PRECISION = FP32


def read_whole(folder: Path, parameters: Parameters) -> Whole[ImageSet]:
    """Return the model of a folder, with the images that it learns from."""
    network, card = load_model(folder)
    manifest = read_manifest()
    training, validation = (image_set(manifest, split, [card.input_size]) for split in ("train", "validation"))
    taught = taught_images([card.input_size])
    settings = parameters.prune
    n_held_out = HELD_OUT_BATCHES if settings.blocks else 0
    batches = sample_batches(
        training, card, card.input_size, IMPORTANCE_BATCHES + n_held_out, settings.batch_size, parameters.seed
    )
    # Of few images, a part is held out all the same, unless there is a single batch.
    n_held_out = min(n_held_out, len(batches) // 2)
    held_out = [inputs for inputs, _ in batches[len(batches) - n_held_out :] or batches]
    return Whole(folder, network, card, taught, validation, batches[: len(batches) - n_held_out], torch.cat(held_out))


def recovery(whole: Whole[ImageSet], parameters: Parameters) -> Recipe:
    """Return how a pruned network is trained back."""
    size, n_examples = whole.card.input_size, len(whole.training.rows)
    return pruned_recipe(parameters.prune, parameters.distill, size, n_examples, parameters.seed)


def refuse_impossible_rival(whole: Whole[ImageSet], settings: Prune) -> None:
    """Raise KingletError if a model's rival is to be a narrower network, and there is none to train anew."""
    if settings.baseline == "width" and not isinstance(whole.network, ResidualCnn):
        raise KingletError(
            f"params.yaml: prune.baseline is width, but {whole.card.name} is a pretrained backbone, "
            "of which no narrower version with weights exists.",
            "Set prune.baseline to resolution: the rival is then the whole network on smaller images.",
        )


def train_rival(pruned: nn.Module, whole: Whole[ImageSet], parameters: Parameters) -> str:
    """Train a dense network that takes no longer than the pruned one, as long; return why there is none, or ""."""
    return RIVALS[parameters.prune.baseline](pruned, whole, parameters)


def train_on_smaller_images(pruned: nn.Module, whole: Whole[ImageSet], parameters: Parameters) -> str:
    """Train the whole network on with the largest images on which it is as fast, for as many epochs.

    Both then have the same weights to start from and the same training behind them; one lost channels, one pixels.
    """
    sizes = [size for size in read_input_sizes().rivals if size < whole.card.input_size]
    if not sizes:
        return f"There are no smaller images than the {whole.card.input_size} px of {whole.card.name} for a rival."
    manifest = read_manifest()
    images = {
        size: sample_batches(
            image_set(manifest, "train", [size]), whole.card, size, 1, CALIBRATION_IMAGES, parameters.seed
        )[0][0].numpy()
        for size in sizes
    }
    subjects = [(pruned, whole.inputs), *((whole.network, images[size]) for size in sizes)]
    limit, *found = (
        of[PRECISION]
        for of in untrained_latencies(subjects, parameters.benchmark.threads, parameters.seed, [PRECISION])
    )
    size = largest_as_fast(dict(zip(sizes, found, strict=True)), limit)
    if size is None:
        return (
            f"{whole.card.name} is as fast as {whole.card.name}-pruned on no smaller images: "
            f"{', '.join(f'{latency.value:.3g} ms at {size} px' for size, latency in zip(sizes, found, strict=True))}, "
            f"and {limit.value:.3g} ms pruned."
        )
    recipe = recovery(whole, parameters)
    (epochs, _), *_ = recipe.phases
    train_from_teacher(
        copy.deepcopy(whole.network).requires_grad_(True),
        PRUNE / as_fast_as_pruned(whole.card.name),
        whole.card,
        (taught_images([size]), image_set(manifest, "validation", [size])),
        replace(recipe, phases=((epochs, size),)),
        parameters.distill,
        parent=whole.card.name,
        facts={"rival": "resolution"},
        files=[whole.folder / "model.pt"],
        notes={"rival": "resolution"},
        control_for=f"{whole.card.name}-pruned",
    )
    return ""


def train_narrower(pruned: nn.Module, whole: Whole[ImageSet], parameters: Parameters) -> str:
    """Train the widest narrower network that is as fast from random weights, for as many epochs in all."""
    assert isinstance(whole.network, ResidualCnn)
    made = partial(random_residual_cnn, seed=parameters.seed)
    threads, seed = parameters.benchmark.threads, parameters.seed
    candidates = list(narrower(whole.network.spec))
    subjects = [(pruned, whole.inputs), *((made(spec), whole.inputs) for spec in candidates)]
    limit, *found = (of[PRECISION] for of in untrained_latencies(subjects, threads, seed, [PRECISION]))
    dense = widest_as_fast(dict(zip(candidates, found, strict=True)), limit)
    if dense is None:
        return f"No narrower dense network is as fast as {whole.card.name}-pruned."
    recipe = student_recipe(parameters.distill, False, whole.card.input_size, len(whole.training.rows), seed)
    train_from_teacher(
        made(dense),
        PRUNE / as_fast_as_pruned(whole.card.name),
        whole.card,
        (whole.training, whole.validation),
        replace(recipe, phases=(*recipe.phases, *recovery(whole, parameters).phases)),
        parameters.distill,
        parent=TEACHER,
        facts={"dense": dense.to_dict()},
        files=[],
        notes={"rival": "width"},
        control_for=f"{whole.card.name}-pruned",
    )
    return ""


def has_none(pruned: nn.Module, whole: Whole[Any], parameters: Parameters) -> str:
    """Return that no rival was asked for."""
    del pruned, parameters
    return f"{whole.card.name}-pruned has no rival: prune.baseline is none."


# A new kind of rival is a function and a line here; `prune.baseline` in params.yaml takes its names from the keys.
RIVALS: dict[str, Callable[[nn.Module, Whole[ImageSet], Parameters], str]] = {
    "resolution": train_on_smaller_images,
    "width": train_narrower,
    "none": has_none,
}
