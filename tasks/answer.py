"""Keep the teacher's answers to the training images, in every view that its students will see."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor, nn

from kinglet.atomic import write_bytes
from kinglet.data.batches import standardize
from kinglet.data.views import Views
from kinglet.models.export import fold_batch_norms
from kinglet.reporting import Report
from kinglet.training.devices import pick_device
from kinglet.training.loop import ImageSet, evaluation_batch
from tasks.artifacts import ANSWERS, FINETUNE, TEACHER, ModelCard
from tasks.models import image_set, load_model, prepare_training, read_manifest
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.recipes import number_of_views
from tasks.stage import run_stage


def run(parameters: Parameters) -> None:
    """Write the teacher's logits, float16 (n_training, n_views, n_classes)."""
    settings = parameters.distill
    prepare_training(parameters.seed)
    network, card = load_model(FINETUNE / TEACHER)
    training = image_set(read_manifest(), "train", [card.input_size])
    views = Views(settings.augment, len(training.rows), number_of_views(settings), parameters.seed)
    with progress("answer") as report:
        answers = answers_of(network, card, training, views, report)
    # Through memory: numpy reports a full disk with an error that does not say so.
    content = io.BytesIO()
    np.save(content, answers.to(torch.float16).numpy())
    write_bytes(ANSWERS, content.getvalue())


@torch.inference_mode()
def answers_of(network: nn.Module, card: ModelCard, training: ImageSet, views: Views, report: Report) -> Tensor:
    """Return the logits for all training images in all views, float32 (n_training, n_views, n_classes)."""
    device = pick_device()
    # Without the batch normalizations it answers the same, sooner.
    folded = fold_batch_norms(network).to(device)
    n, n_classes = len(training.rows), len(card.classes)
    answers = torch.empty(n, views.n_views, n_classes)
    packed = training.packed[card.input_size]
    for view in range(views.n_views):
        for positions in np.split(np.arange(n), range(step := evaluation_batch(card.input_size), n, step)):
            same = torch.full((len(positions),), view)
            pixels, _ = views.show(packed, training.rows, positions, same, device)
            answers[torch.from_numpy(positions), view] = folded(standardize(pixels, card.mean, card.std)).float().cpu()
            report(view * n + int(positions[-1]) + 1, views.n_views * n, f"view {view + 1} of {views.n_views}")
    return answers


if __name__ == "__main__":
    run_stage(run)
