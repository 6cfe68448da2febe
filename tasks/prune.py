"""Remove channels from trained models and train them back from the teacher; refuse cuts that gain no time."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.atomic import write_json
from kinglet.compression.dense import is_faster, widest_as_fast
from kinglet.compression.pruning import prune_channels, reestimate_batch_norms
from kinglet.compression.search import Latency
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, random_residual_cnn
from kinglet.training.loop import ImageSet, Recipe
from tasks.artifacts import (
    DISTILL,
    FINETUNE,
    PRUNE,
    REFUSED_CUTS,
    TEACHER,
    ModelCard,
    as_fast_as_pruned,
    model_folders,
    refuse_unknown_models,
)
from tasks.distillation import train_from_teacher
from tasks.models import (
    image_set,
    load_model,
    prepare_training,
    read_manifest,
    sample_batches,
)
from tasks.parameters import Parameters
from tasks.recipes import pruned_recipe, student_recipe
from tasks.stage import run_stage
from tasks.untrained_latency import untrained_latency

IMPORTANCE_BATCHES = 8


@dataclass(frozen=True)
class Whole:
    """A trained model before anything is cut.

    batches: (inputs, labels) of training images as the network takes them.
    """

    folder: Path
    network: nn.Module
    card: ModelCard
    training: ImageSet
    validation: ImageSet
    batches: list[tuple[Tensor, Tensor]]

    @property
    def inputs(self) -> NDArray[np.float32]:
        """A batch of inputs."""
        return self.batches[0][0].numpy()


def run(parameters: Parameters) -> None:
    """Prune every model that the settings name; note the cuts that were refused, {model: why}."""
    settings = parameters.prune
    prepare_training(parameters.seed)
    folders = {folder.name: folder for folder in model_folders(FINETUNE, DISTILL)}
    refuse_unknown_models("prune.models", settings.models, folders)
    PRUNE.mkdir(parents=True, exist_ok=True)
    refused = {}
    for name in settings.models:
        whole = read_whole(folders[name], parameters)
        pruned = cut(whole, parameters)
        before, after = (latency_of(network, whole, parameters) for network in (whole.network, pruned))
        if not is_faster(after, before):
            refused[name] = (
                f"Without {settings.channel_share:.0%} of its channels {name} would be no faster: "
                f"{after.value:.3g} ms instead of {before.value:.3g} ms."
            )
            print(f"warning: {refused[name]} It is not pruned.", file=sys.stderr)
            continue
        train_pruned(pruned, whole, parameters)
        if settings.baseline and isinstance(whole.network, ResidualCnn):
            train_dense(whole.network.spec, after, whole, parameters)
    write_json(REFUSED_CUTS, refused)


def read_whole(folder: Path, parameters: Parameters) -> Whole:
    """Return the model of a folder, with the images that it learns from."""
    network, card = load_model(folder)
    manifest = read_manifest()
    training, validation = (image_set(manifest, split, [card.input_size]) for split in ("train", "validation"))
    batch_size = parameters.prune.batch_size
    batches = sample_batches(training, card, card.input_size, IMPORTANCE_BATCHES, batch_size, parameters.seed)
    return Whole(folder, network, card, training, validation, batches)


def cut(whole: Whole, parameters: Parameters) -> nn.Module:
    """Return the network without the least important channels, its statistics renewed."""
    settings = parameters.prune
    pruned = prune_channels(
        whole.network,
        whole.batches[0][0][:2],
        settings.channel_share,
        settings.importance,
        settings.round_to,
        whole.batches,
        settings.scope,
        settings.steps,
    )
    reestimate_batch_norms(pruned, [inputs for inputs, _ in whole.batches])
    return pruned


def latency_of(network: nn.Module, whole: Whole, parameters: Parameters) -> Latency:
    """Return how long a network takes for one of the model's inputs."""
    return untrained_latency(network, whole.inputs, parameters.benchmark.threads, parameters.seed)


def train_pruned(pruned: nn.Module, whole: Whole, parameters: Parameters) -> None:
    """Train a pruned network back and save it beside the others."""
    settings, name = parameters.prune, whole.card.name
    train_from_teacher(
        pruned,
        PRUNE / f"{name}-pruned",
        whole.card,
        (whole.training, whole.validation),
        recovery(whole, parameters),
        parameters.distill,
        parent=name,
        facts={"prune": settings.model_dump(exclude={"models", "baseline"})},
        files=[whole.folder / "model.pt"],
        notes={"channel_share": settings.channel_share, "importance": settings.importance},
    )


def train_dense(spec: ResidualCnnSpec, limit: Latency, whole: Whole, parameters: Parameters) -> None:
    """Train the widest dense network that is as fast as the pruned one, as long as that one was trained in all."""
    made = partial(random_residual_cnn, seed=parameters.seed)
    dense = widest_as_fast(spec, limit, lambda narrower: latency_of(made(narrower), whole, parameters))
    if dense is None:
        print(f"warning: no dense network is as fast as {whole.card.name}-pruned.", file=sys.stderr)
        return
    recipe = student_recipe(parameters.distill, False, whole.card.input_size, len(whole.training.rows), parameters.seed)
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
        notes={},
        control_for=f"{whole.card.name}-pruned",
    )


def recovery(whole: Whole, parameters: Parameters) -> Recipe:
    """Return how a pruned network is trained back."""
    size, n_examples = whole.card.input_size, len(whole.training.rows)
    return pruned_recipe(parameters.prune, parameters.distill, size, n_examples, parameters.seed)


if __name__ == "__main__":
    run_stage(run)
