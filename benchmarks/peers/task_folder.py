"""What the peers are given: files that need no Kinglet to be read.

task/teacher.onnx            the fine-tuned network, fp32
task/teacher.pt              the same as a torch.fx graph of plain torch layers, for peers that train
task/calibration.npy         float32 (n, channels, height, width): the images that `quantize` calibrates with
task/choice.npy, choice_labels.npy   validation images: `quantize` decides between its variants with these
task/train_images.npy, train_rows.npy, train_labels.npy   uint8 images, row numbers and labels to train with
task/task.json               input_size, channels, mean, std, n_classes, seed, threads, training_seconds
scoring/test_SIZE.npy        float32 test images, which no recipe is given
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from kinglet.atomic import read_json, write_json
from kinglet.data.batches import open_packed
from kinglet.errors import KingletError
from kinglet.runtime.bundles import MODEL, WITHOUT_VNNI, sha256_of
from kinglet.runtime.preprocessing import Preprocessing, model_input
from kinglet.runtime.processors import available_processors
from kinglet.runtime.vnni import products_saturate
from tasks.artifacts import (
    EXPORT,
    FINETUNE,
    MODEL_STEPS,
    SELECT,
    TEACHER,
    WORKSPACE,
    ModelCard,
    model_folders,
    packed_images,
    read_card,
)
from tasks.models import image_set, load_model, read_manifest
from tasks.parameters import load_parameters
from tasks.quantize import CHOICE_IMAGES
from tasks.stage import read_timings

# The steps in which Kinglet trains after fine-tuning: a peer that trains has as long.
COMPRESSION_STEPS = ("search", "distill", "prune", "quantize")
ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class FinishedRun:
    """The models of a run: {name: (card, ONNX file)}, and the name of the chosen one."""

    models: dict[str, tuple[ModelCard, Path]]
    chosen: str


def read_run() -> FinishedRun:
    """Return what the run in the working directory made; raises KingletError if it is not finished."""
    if not (FINETUNE / TEACHER / "model.onnx").is_file() or not (SELECT / "choice.json").is_file():
        raise KingletError(
            f"{Path.cwd().name} holds no finished run: {SELECT / 'choice.json'} or the teacher is missing.",
            "Run `make run` first, or name the checkout of a finished run with --run.",
        )
    # The peers' runtimes are their own business; ours here is ONNX Runtime.
    steps = [step for step in MODEL_STEPS if step != EXPORT]
    cards = {folder: read_card(folder) for folder in model_folders(*steps)}
    models = {card.name: (card, served_file(folder.resolve())) for folder, card in cards.items()}
    # Where the choice is a model that was converted for another runtime, the one that it was made from.
    return FinishedRun(models, Path(read_json(SELECT / "choice.json")["onnx"]).parent.name)


def served_file(folder: Path) -> Path:
    """Return the file of a model that would be served on this processor."""
    without_vnni = folder / WITHOUT_VNNI
    return without_vnni if products_saturate() and without_vnni.is_file() else folder / MODEL


def training_seconds() -> float:
    """Return how long Kinglet trained after fine-tuning in the working directory's run.

    Raises KingletError if the run left no timings.
    """
    seconds = seconds_of(COMPRESSION_STEPS, Path())
    if not seconds:
        raise KingletError(
            f"{Path.cwd().name}/.kinglet/timings.json does not say how long {', '.join(COMPRESSION_STEPS)} took.",
            "Say how long peers may train with --training-minutes.",
        )
    return seconds


def seconds_of(steps: Iterable[str], checkout: Path) -> float:
    """Return how long these steps of a checkout's run took; one that has not run took nothing."""
    timings = read_timings(checkout / WORKSPACE)
    return float(sum(timings[step]["ended"] - timings[step]["started"] for step in steps if step in timings))


def write_task(folder: Path, seconds: float, data: str | None = None) -> dict[str, Any]:
    """Write the task of the run in the working directory to `folder`; return what the result says about it.

    seconds: that peers may train. data: what the data set is called, if not as its source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters, manifest = load_parameters(), read_manifest()
    teacher, card = load_model(FINETUNE / TEACHER)
    size, preprocessing = card.input_size, card.preprocessing
    training, validation = (image_set(manifest, split, [size]) for split in ("train", "validation"))
    chosen = np.random.default_rng(parameters.seed).permutation(len(training.rows))
    chosen = np.sort(chosen[: parameters.quantize.calibration_images])
    shutil.copyfile(FINETUNE / TEACHER / "model.onnx", folder / "teacher.onnx")
    torch.save(as_plain_graph(teacher), folder / "teacher.pt")
    write_inputs(folder / "calibration.npy", training.packed[size], training.rows[chosen], preprocessing)
    choice = validation.rows[:CHOICE_IMAGES]
    write_inputs(folder / "choice.npy", validation.packed[size], choice, preprocessing)
    np.save(folder / "choice_labels.npy", validation.labels[:CHOICE_IMAGES])
    shutil.copyfile(packed_images(size), folder / "train_images.npy")
    np.save(folder / "train_rows.npy", training.rows)
    np.save(folder / "train_labels.npy", training.labels)
    facts = {
        "input_size": size,
        "channels": card.channels,
        "mean": card.mean,
        "std": card.std,
        "n_classes": len(card.classes),
        "seed": parameters.seed,
        "threads": available_processors(),
        "training_seconds": round(seconds, 1),
    }
    write_json(folder / "task.json", facts)
    counts = {"calibration_images": len(chosen), "choice_images": len(choice), "training_images": len(training.rows)}
    told = f"{data or data_set_name(parameters.data.source)}, {size} px"
    return {"data": told, **counts, "training_seconds": facts["training_seconds"]}


def data_set_name(source: str) -> str:
    """Return what people call a source: its folder's name, also where it is a file in that folder."""
    path = Path(source)
    return path.parent.name if path.suffix else path.name


def digest_of(folder: Path) -> str:
    """Return a digest of a task: of the teacher, the images to calibrate, choose and train with, and the facts."""
    names = ("task.json", "teacher.onnx", "calibration.npy", "choice.npy", "train_rows.npy", "train_labels.npy")
    return hashlib.sha256("".join(sha256_of(folder / name) for name in names).encode()).hexdigest()


def write_test_images(folder: Path, card: ModelCard) -> tuple[Path, NDArray[np.int64]]:
    """Write the test images as `card`'s model takes them, once per size and kind; return the file and the labels."""
    test = image_set(read_manifest(), "test", [card.input_size])
    path = folder / f"test_{card.input_size}_{'pixels' if card.takes_pixels else 'floats'}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_inputs(path, open_packed(packed_images(card.input_size)), test.rows, card.preprocessing)
    return path, test.labels


def write_inputs(path: Path, packed: NDArray[np.uint8], rows: NDArray[np.int64], preprocessing: Preprocessing) -> None:
    """Write these rows of packed images as a model's input.

    float32 (n, channels, height, width), or uint8 (n, height, width, channels) where it takes pixels.
    """
    one = model_input(np.asarray(packed[rows[:1]]), preprocessing)
    written = np.lib.format.open_memmap(path, mode="w+", dtype=one.dtype, shape=(len(rows), *one.shape[1:]))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = rows[start : start + ROWS_AT_A_TIME]
        written[start : start + len(part)] = model_input(np.asarray(packed[part]), preprocessing)
    written.flush()


def as_plain_graph(network: nn.Module) -> fx.GraphModule:
    """Return the network as a torch.fx graph of torch's own layers, which loads where Kinglet is not installed.

    Kinglet's convolutions compute the same as `nn.Conv2d`, and train faster; a peer gets the latter.
    """
    plain = copy.deepcopy(network).cpu().eval()
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and type(child) is not nn.Conv2d:
                setattr(module, name, as_plain_convolution(child))
    graph = fx.symbolic_trace(plain)
    for node in graph.graph.nodes:
        node.type = None  # annotations are text here, which does not pickle
    graph.recompile()
    return graph


def as_plain_convolution(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution as an `nn.Conv2d`."""
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    return plain
