"""Keep the teacher's answers to the training images, in every view that its students will see.

Where students are to learn from more than answers, what the teacher sees on the way to them is kept as well.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.atomic import atomic_path, write_bytes
from kinglet.data.batches import standardize
from kinglet.data.views import Views
from kinglet.models.clip_classifier import ClipClassifier
from kinglet.models.export import fold_batch_norms, to_onnx
from kinglet.models.feature_maps import feature_maps
from kinglet.reporting import Report
from kinglet.runtime.sessions import open_session
from kinglet.runtime.sessions import run as compute
from kinglet.training.devices import pick_device
from kinglet.training.hints import kept_maps
from kinglet.training.loop import ImageSet, rows_at_once
from tasks.artifacts import ANSWERS, FINETUNE, MAPS, TEACHER, ModelCard
from tasks.models import load_model, prepare_training, taught_images
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.recipes import number_of_views
from tasks.setting_values import NO_HINTS
from tasks.stage import run_stage

# From inputs, float32 (n, channels, size, size), to logits (n, n_classes).
Network = Callable[[Tensor], Tensor]


def run(parameters: Parameters) -> None:
    """Write what students learn from."""
    KEEPING[parameters.network](parameters)


def keep_nothing(_: Parameters) -> None:
    """Write that there are no answers: none is asked for, or the teacher gives them while its students are trained."""
    write_answers(torch.empty(0, 0, 0))


def keep_logits(parameters: Parameters) -> None:
    """Write the teacher's logits, float16 (n_training, n_views, n_classes), and its maps if students need them."""
    settings = parameters.distill
    prepare_training(parameters.seed)
    network, card = load_model(FINETUNE / TEACHER)
    training = taught_images([card.input_size])
    views = Views(settings.augment, len(training.rows), number_of_views(settings), parameters.seed)
    for left_over in MAPS.glob("*.npy"):
        left_over.unlink()
    with ExitStack() as outputs:
        maps = KeptMaps(settings.hints, len(training.rows), views.n_views, outputs)
        with progress("answer") as report:
            answers = answers_of(network, card, training, views, maps, report)
        maps.tell()
    write_answers(answers)


def write_answers(answers: Tensor) -> None:
    """Write logits of shape (n_training, n_views, n_classes) as float16."""
    # Through memory: numpy reports a full disk with an error that does not say so.
    content = io.BytesIO()
    np.save(content, answers.to(torch.float16).numpy())
    write_bytes(ANSWERS, content.getvalue())


class KeptMaps:
    """What the teacher sees, in files as large as all images and views ask for, filled batch by batch.

    kind: a key of `kinglet.training.hints.HINTS`, or "none": then nothing is written. outputs: closes the files.
    """

    def __init__(self, kind: str, n_images: int, n_views: int, outputs: ExitStack) -> None:
        self.kind, self.shape, self.outputs = kind, (n_images, n_views), outputs
        self.arrays: list[NDArray[np.float16]] = []

    def answer(self, network: Network, inputs: Tensor, positions: NDArray[np.int64], view: int) -> Tensor:
        """Return a network's logits for the inputs, the images at `positions` in this view, and keep its maps."""
        if self.kind == NO_HINTS:
            return network(inputs)
        assert isinstance(network, nn.Module), "nothing else shows what it sees on the way"
        maps, logits = feature_maps(network, inputs)
        kept = [one.to(torch.float16).cpu().numpy() for one in kept_maps(self.kind, maps)]
        if not self.arrays:
            self.arrays = [self.create(number, one.shape[1:]) for number, one in enumerate(kept)]
        for array, values in zip(self.arrays, kept, strict=True):
            array[positions, view] = values
        return logits

    def create(self, number: int, shape: tuple[int, ...]) -> NDArray[np.float16]:
        """Return a new file for maps of this shape; it gets its name when all of them are whole."""
        path: Path = self.outputs.enter_context(atomic_path(MAPS / f"{number}.npy"))
        return np.lib.format.open_memmap(path, "w+", np.float16, (*self.shape, *shape))

    def tell(self) -> None:
        """Print what the maps take, if there are any."""
        if self.arrays:
            shapes = ", ".join("x".join(map(str, array.shape[2:])) for array in self.arrays)
            megabytes = sum(array.nbytes for array in self.arrays) / 1e6
            print(f"note: the teacher's maps ({shapes}) take {megabytes:.0f} MB in {MAPS}", file=sys.stderr)


@torch.inference_mode()
def answers_of(
    network: nn.Module, card: ModelCard, training: ImageSet, views: Views, maps: KeptMaps, report: Report
) -> Tensor:
    """Return the logits for all training images, or clips, in all views, float32 (n_training, n_views, n_classes)."""
    device = pick_device()
    if device.type == "cpu" and maps.kind == NO_HINTS and not isinstance(network, ClipClassifier):
        answering = in_onnxruntime(network, card)
    else:
        # Without the batch normalizations it answers the same, sooner.
        answering = fold_batch_norms(network).to(device)
    n, n_classes = len(training.rows), len(card.classes)
    answers = torch.empty(n, views.n_views, n_classes)
    packed = training.packed[card.input_size]
    for view in range(views.n_views):
        for positions in np.split(np.arange(n), range(step := rows_at_once(packed), n, step)):
            same = torch.full((len(positions),), view)
            pixels, _ = views.show(packed, training.rows, positions, same, device)
            logits = maps.answer(answering, standardize(pixels, card.mean, card.std), positions, view)
            answers[torch.from_numpy(positions), view] = logits.float().cpu()
            report(view * n + int(positions[-1]) + 1, views.n_views * n, f"view {view + 1} of {views.n_views}")
    return answers


def in_onnxruntime(network: nn.Module, card: ModelCard) -> Network:
    """Return a classifier as ONNX Runtime computes it on the CPU: the same but for rounding, in less time.

    With EfficientNet-Lite0 at 48 pixels this step took torch 1.3 to 1.5 times as long (two cores, AVX2, in turns).
    """
    model = to_onnx(network, card.input_size, card.channels, {})
    session = open_session(model.SerializeToString(), torch.get_num_threads())
    return lambda inputs: torch.from_numpy(compute(session, inputs.contiguous().numpy()))


KEEPING = {
    "classification": keep_logits,
    "detection": keep_nothing,
    "segmentation": keep_nothing,
    "video": keep_nothing,
}

if __name__ == "__main__":
    run_stage(run)
