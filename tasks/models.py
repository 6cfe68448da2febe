"""How the training steps read their images and keep their models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.atomic import read_json, write_bytes
from kinglet.data.batches import gather, open_packed, standardize
from kinglet.models.clip_classifier import ClipClassifier, FramePart, recurrent_step_of
from kinglet.models.export import step_to_onnx, to_onnx
from kinglet.models.onnx_graph import DETECTOR_OUTPUTS, OUTPUT_NAME
from kinglet.models.registry import architecture_of, normalization, rebuild
from kinglet.runtime.bundles import MODEL, RECURRENT
from kinglet.runtime.preprocessing import Placement, Preprocessing, placement
from kinglet.runtime.sessions import FEATURES_NAME, open_session
from kinglet.training.allocator import keep_freed_memory, use_huge_pages
from kinglet.training.checkpoints import Checkpoint, checkpoint_key, write_state
from kinglet.training.devices import make_deterministic, training_threads
from kinglet.training.loop import ImageSet
from kinglet.training.losses import NO_LABEL
from tasks.artifacts import (
    INGEST,
    SPLIT,
    UNLABELLED,
    WORKSPACE,
    ModelCard,
    packed_images,
    read_card,
    write_card,
)
from tasks.parameters import Parameters

CLASSIFICATION = "classification"
# What a network returns, as its file calls it, by problem.
OUTPUTS = {
    CLASSIFICATION: (OUTPUT_NAME,),
    "detection": DETECTOR_OUTPUTS,
    "segmentation": (OUTPUT_NAME,),
    "video": (FEATURES_NAME,),
}


def prepare_training(seed: int, n_processes: int = 1) -> None:
    """Set torch up for a deterministic training on the cores that this process may use.

    n_processes: how many share the cores.
    """
    keep_freed_memory()
    use_huge_pages()
    make_deterministic(seed)
    torch.set_num_threads(training_threads(n_processes))


def read_manifest() -> pd.DataFrame:
    """Return the usable images with their split and label index."""
    return pd.read_parquet(SPLIT / "manifest.parquet")


def read_classes() -> list[str]:
    """Return the class names; a label index points into them."""
    classes: list[str] = read_json(SPLIT / "classes.json")
    return classes


def image_set(
    manifest: pd.DataFrame, split: str, input_sizes: Iterable[int], packed: Callable[[int], Path] = packed_images
) -> ImageSet:
    """Return the images of one split at these resolutions, memory-mapped. packed: the file of each resolution."""
    part = manifest[manifest["split"] == split]
    return ImageSet(
        {size: open_packed(packed(size)) for size in sorted(set(input_sizes))},
        part["index"].to_numpy(np.int64, copy=True),
        part["label_index"].to_numpy(np.int64, copy=True),
    )


def taught_images(input_sizes: Iterable[int]) -> ImageSet:
    """Return what the teacher's students learn from: the training images, after them those without a label.

    The answers of the teacher lie in the same order. The label of those is `NO_LABEL`.
    """
    training = image_set(read_manifest(), "train", input_sizes)
    rows = pd.read_parquet(UNLABELLED)["index"].to_numpy(np.int64)
    return ImageSet(
        training.packed,
        np.concatenate([training.rows, rows]),
        np.concatenate([training.labels, np.full(len(rows), NO_LABEL)]),
    )


def channels_of(images: ImageSet) -> int:
    """Return 1 for gray, 3 for colour."""
    return next(iter(images.packed.values())).shape[-1]


def sample_batches(
    images: ImageSet, card: ModelCard, input_size: int, n_batches: int, batch_size: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random images of this edge length as a model takes them, with their labels.

    Fewer than `n_batches` where there are not enough images; the last may be smaller.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.rows), generator=generator).numpy()[: n_batches * batch_size]
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    packed = images.packed[input_size]
    return [
        (standardize(gather(packed, images.rows[part]), card.mean, card.std), torch.from_numpy(images.labels[part]))
        for part in parts
    ]


def open_checkpoint(step: str, facts: dict[str, Any], files: Iterable[Path] = ()) -> Checkpoint:
    """Return the checkpoint of a training, keyed by everything that decides its result."""
    inputs = (SPLIT / "manifest.parquet", INGEST / "manifest.parquet", *files)
    key = checkpoint_key({"step": step, "torch": torch.__version__, **facts}, inputs)
    return Checkpoint(WORKSPACE / "checkpoints" / f"{step}-{key}")


def save_model(
    folder: Path,
    network: nn.Module,
    *,
    step: str,
    parent: str,
    input_size: int,
    channels: int,
    fit: str,
    mean: list[float],
    std: list[float],
    classes: list[str],
    notes: dict[str, Any],
    control_for: str = "",
    problem: str = CLASSIFICATION,
) -> None:
    """Write a network as model.pt, model.json and model.onnx, of clips as recurrent.onnx too.

    problem: a key of `OUTPUTS`.
    """
    network = network.cpu().eval()
    preprocessing = Preprocessing(input_size, channels, fit, tuple(mean), tuple(std))
    facts: dict[str, Any] = {"preprocessing": preprocessing.to_dict(), "classes": classes}
    # A file that says nothing of it is a classifier.
    facts |= {} if problem == CLASSIFICATION else {"problem": problem}
    for name, model in exported(network, input_size, channels, facts, problem).items():
        write_bytes(folder / name, model.SerializeToString())
    write_state(folder / "model.pt", network.state_dict())
    card = ModelCard(
        name=folder.name,
        step=step,
        parent=parent,
        precision="fp32",
        problem=problem,
        architecture=architecture_of(network),
        input_size=input_size,
        channels=channels,
        fit=fit,
        mean=mean,
        std=std,
        classes=classes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        notes=notes,
        control_for=control_for,
    )
    write_card(folder, card)


def exported(
    network: nn.Module, input_size: int, channels: int, facts: dict[str, Any], problem: str
) -> dict[str, onnx.ModelProto]:
    """Return a network's ONNX models by their files' names. facts: their metadata. problem: a key of `OUTPUTS`."""
    if not isinstance(network, ClipClassifier):
        return {MODEL: to_onnx(network, input_size, channels, facts, OUTPUTS[problem])}
    return {
        MODEL: to_onnx(FramePart(network), input_size, channels, facts, OUTPUTS[problem]),
        RECURRENT: step_to_onnx(recurrent_step_of(network), facts),
    }


def placements_of(rows: NDArray[np.int64], size: int, fit: str) -> tuple[list[Placement], NDArray[np.int64]]:
    """Return how images were brought to squares of `size` pixels, and where each lies there, int64 (n, 4).

    The latter as left, top, right, bottom. rows: of the images in the packed files, int64 (n,).
    """
    shapes = pd.read_parquet(INGEST / "manifest.parquet", columns=["index", "width", "height"]).set_index("index")
    sides = shapes.loc[rows].to_numpy(np.int64).tolist()
    placed = [placement(width, height, size, fit) for width, height in sides]
    insides = [
        one.to_input(np.array([[0.0, 0.0, width, height]]))[0]
        for one, (width, height) in zip(placed, sides, strict=True)
    ]
    return placed, np.rint(np.array(insides).reshape(-1, 4)).astype(np.int64)


def preprocessing_of(size: int, channels: int, parameters: Parameters) -> Preprocessing:
    """Return how images become the input of a network trained here. size: of that input."""
    mean, std = normalization(channels)
    return Preprocessing(size, channels, parameters.data.fit, tuple(mean), tuple(std))


def served(
    network: nn.Module, size: int, channels: int, classes: list[str], parameters: Parameters
) -> onnxruntime.InferenceSession:
    """Return a session of a trained network's ONNX file, on one thread, as it would be served. size: of its input."""
    problem, preprocessing = parameters.network, preprocessing_of(size, channels, parameters)
    facts = {"preprocessing": preprocessing.to_dict(), "classes": classes}
    (model,) = exported(network.cpu().eval(), size, channels, facts, problem).values()
    return open_session(model.SerializeToString(), threads=1, outputs=OUTPUTS[problem])


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Return a network in evaluation mode and its card."""
    card = read_card(folder)
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    return rebuild(card.architecture, state), card
