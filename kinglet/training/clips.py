"""How what stands behind a clip classifier's backbone is trained alone: long, as it costs nothing.

The backbone answers every frame once; its pooled maps lie in a file, and epochs read them from there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinglet.atomic import atomic_path
from kinglet.data.batches import images_in_a_row, standardize
from kinglet.data.views import Shown, Views
from kinglet.models.clip_classifier import BehindBackbone, ClipClassifier
from kinglet.reporting import Report, silent
from kinglet.training.checkpoints import Checkpoint
from kinglet.training.epochs import Epoch, Objective, Recipe, train
from kinglet.training.loop import ImageSet, rows_at_once, standard_error
from kinglet.training.losses import Loss
from kinglet.training.parallel import ALONE, Team

# Clips whose maps are in memory at once where nothing is learnt.
CLIPS_AT_ONCE = 64


@torch.inference_mode()
def write_places(
    file: Path,
    network: ClipClassifier,
    clips: ImageSet,
    size: int,
    *,
    mean: list[float],
    std: list[float],
    device: torch.device,
    views: Views | None = None,
    report: Report = silent,
) -> NDArray[np.float16]:
    """Return the pooled maps of clips, float16 (n_shown, frames, channels, grid, grid), memory-mapped from `file`.

    A file that is there is taken as it is: its name has to tell the backbone and the clips. size: edge of the frames.
    views: how the clips are shown, all in the first view, then all in the second, and so on; None: once, as they are.
    """
    if not file.exists():
        network = network.eval().to(device)
        packed, rows = clips.packed[size], clips.rows
        views = views or Views([], len(rows), 1, seed=0)
        n_frames, n_shown = images_in_a_row(packed), len(rows) * views.n_views
        at_once = rows_at_once(packed)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            written = None
            for start in range(0, n_shown, at_once):
                shown = np.arange(start, min(start + at_once, n_shown))
                pixels, _ = views.show(packed, rows, shown % len(rows), torch.from_numpy(shown // len(rows)), device)
                places = network.places(standardize(pixels, mean, std)).float().cpu().numpy()
                if written is None:
                    shape = (n_shown, n_frames, *places.shape[1:])
                    written = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                written[start : start + at_once] = places.reshape(-1, *written.shape[1:])
                report(int(shown[-1]) + 1, n_shown, "clips through the backbone")
            assert written is not None
            written.flush()
    return np.load(file, mmap_mode="r")


def fit_behind(
    network: BehindBackbone,
    training: tuple[NDArray[np.float16], NDArray[np.int64]],
    validation: tuple[NDArray[np.float16], NDArray[np.int64]],
    loss: Loss,
    recipe: Recipe,
    *,
    device: torch.device,
    team: Team = ALONE,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train what stands behind a backbone; return its best averaged weights as a network, and the history by epoch.

    training, validation: pooled maps as `write_places` returns them, and labels, int64 (n_clips,). The best are as
    `kinglet.training.loop.fit` says; the rest is as `train` says.
    """
    places, _ = training

    def show(_: Epoch, positions: NDArray[np.int64]) -> tuple[Tensor, Shown]:
        shown = torch.from_numpy(positions)
        return frames_of(places[positions], device), Shown(
            shown, torch.zeros_like(shown), shown, torch.ones(len(shown))
        )

    objective = Objective(
        n_examples=len(places),
        show=show,
        loss=loss,
        score=lambda average: accuracy_behind(average, *validation, device),
        score_name="accuracy",
        slack=lambda best: standard_error(best, len(validation[1])),
    )
    return train(network, objective, recipe, device=device, team=team, checkpoint=checkpoint, report=report)


@torch.inference_mode()
def accuracy_behind(
    network: nn.Module, places: NDArray[np.float16], labels: NDArray[np.int64], device: torch.device
) -> float:
    """Return the share of clips, [0, 1], that are taken for what they are, from pooled maps."""
    network.eval()
    right = 0
    for start in range(0, len(labels), CLIPS_AT_ONCE):
        part = slice(start, start + CLIPS_AT_ONCE)
        predicted = network(frames_of(places[part], device)).argmax(1).cpu().numpy()
        right += int((predicted == labels[part]).sum())
    return right / len(labels)


def frames_of(places: NDArray[np.float16], device: torch.device) -> Tensor:
    """Return the maps of clips as those of frames, float32 (n_clips * frames, channels, grid, grid)."""
    return torch.from_numpy(np.asarray(places, np.float32)).flatten(0, 1).to(device)
