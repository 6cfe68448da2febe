"""Pictures per second of augmentation that moves boxes along, beside torchvision's.

What: packed images of 320 pixels with 20 boxes each, shown at a random scale of 0.6 to 1.6, cut or padded to 320
pixels and mirrored, and their boxes with them. Kinglet's `show`, alone and with half of the pictures as mosaics;
torchvision's `ScaleJitter`, `RandomCrop`, `RandomHorizontalFlip` and `SanitizeBoundingBoxes`, which make no mosaics.
How: one thread each, in turns, once uncounted; CPU time, so that a neighbour costs nothing. The median with the range.

    .venv/bin/pip install --no-deps --target TORCHVISION torchvision
    .venv/bin/python -m benchmarks.box_augmentation --torchvision TORCHVISION

Expected time: half a minute.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import RESULTS, shown_command, spread, write_result
from kinglet.data.box_augmentation import CROP, FLIP, MOSAIC, SCALES, SMALLEST_SEEN_PIXELS, show
from kinglet.data.boxed_images import BoxedImages, Objects
from kinglet.errors import KingletError
from tasks.stage import exit_code_of

N_IMAGES, SIZE, N_BOXES = 64, 320, 20


def random_images() -> BoxedImages:
    """Return images of noise with random boxes: what is on them costs no time."""
    generator = np.random.default_rng(0)
    packed = generator.integers(0, 256, (N_IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    corners = generator.uniform(0, SIZE - 64, (N_IMAGES, N_BOXES, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(16, 64, corners.shape)], 2).astype(np.float32)
    objects = tuple(Objects(of_image, np.zeros(N_BOXES, np.int64)) for of_image in boxes)
    return BoxedImages(packed, np.arange(N_IMAGES), np.tile([0, 0, SIZE, SIZE], (N_IMAGES, 1)), objects)


def by_kinglet(images: BoxedImages, names: tuple[str, ...]) -> None:
    """Show every image once."""
    show(images, range(N_IMAGES), SIZE, names, (0,))


def import_torchvision(folder: Path) -> tuple[Any, Any, str]:
    """Return torchvision's transforms and tensors, and its version, from a folder that pip installed it into.

    Its transforms are Python; its compiled operators, which fit one build of torch only, are not needed: it is enough
    that their names are known. Raises KingletError if the folder holds no torchvision.
    """
    declarations = folder / "torchvision" / "_meta_registrations.py"
    if not declarations.is_file():
        raise KingletError(f"{folder} holds no torchvision.", "pip install --no-deps --target FOLDER torchvision")
    sys.path.insert(0, str(folder))
    names = re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', declarations.read_text())
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(names)):
        library.define(f"{name}(Tensor x) -> Tensor")
    import torchvision
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    return v2, tv_tensors, torchvision.__version__


def with_torchvision(images: BoxedImages, v2: Any, tv_tensors: Any) -> Callable[[], None]:
    """Return an action that shows every image once by torchvision."""
    transform = v2.Compose(
        [
            v2.ScaleJitter((SIZE, SIZE), scale_range=SCALES, antialias=True),
            v2.RandomCrop((SIZE, SIZE), pad_if_needed=True),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(min_size=SMALLEST_SEEN_PIXELS),
        ]
    )
    samples = [
        {
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(objects.xyxy, format="XYXY", canvas_size=(SIZE, SIZE)),
            "labels": torch.from_numpy(objects.labels),
        }
        for pixels, objects in zip(images.packed, images.objects, strict=True)
    ]

    def action() -> None:
        for sample in samples:
            transform(sample)

    return action


def pictures_per_second(action: Callable[[], None]) -> float:
    """Return pictures per second of CPU time."""
    started = time.process_time()
    action()
    return N_IMAGES / (time.process_time() - started)


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = random_images()
    v2, tv_tensors, version = import_torchvision(options.torchvision)
    actions = {
        "kinglet": partial(by_kinglet, images, (FLIP, CROP)),
        "kinglet_with_mosaics": partial(by_kinglet, images, (FLIP, CROP, MOSAIC)),
        "torchvision": with_torchvision(images, v2, tv_tensors),
    }
    rates: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(options.runs + 1):
        for name, action in actions.items():
            rate = pictures_per_second(action)
            if turn:
                rates[name].append(rate)
    ratios = [one / other for one, other in zip(rates["kinglet"], rates["torchvision"], strict=True)]
    path = write_result(
        options.results,
        "box_augmentation",
        command=shown_command("box_augmentation", sys.argv[1:]),
        repetitions=options.runs,
        figures={
            "images": N_IMAGES,
            "size": SIZE,
            "boxes_per_image": N_BOXES,
            "torchvision_version": version,
            **{f"{name}_pictures_per_second": spread(values, 1) for name, values in rates.items()},
            "times_torchvision": spread(ratios, 2),
        },
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Pictures per second of augmentation with boxes.")
    parser.add_argument("--torchvision", type=Path, required=True, help="folder that pip installed torchvision into")
    parser.add_argument("--runs", type=int, default=7, help="counted repetitions (default: 7)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
