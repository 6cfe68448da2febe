"""The rows of single steps: training, intervals, pictures with boxes, robustness, adaptation."""

from __future__ import annotations

from typing import Any

from benchmarks.results import counted
from benchmarks.tables.words import Rows, duration, seconds_in_words

ADAPTATIONS = {
    "batch_norm": "batch statistics of {adaptation:,} images without labels",
    "self_training": "self-training on {adaptation:,} images without labels",
    "finetune": "fine-tuning on {labelled:,} labelled images",
}


def training_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of training_speed.json."""
    titles = {"fashion-mnist": "Fashion-MNIST", "photos": "{images:,} photos"}
    rows = []
    for name, found in figures.items():
        ratio, kinglet, obvious = found["ratio"], found["kinglet_images_per_second"], found["obvious_images_per_second"]
        title = titles[name].format(**found)
        measured = (
            f"**{ratio['median']:.2f} times** ({ratio['low']:.2f} to {ratio['high']:.2f}, "
            f"{counted(len(ratio['values']), 'pair')}): {kinglet['median']:.0f} beside {obvious['median']:.0f} images/s"
        )
        what = f"Training beside the obvious PyTorch loop, {title}, {found['input_size']} px"
        rows.append((what, "at least 1.8 times as fast", measured))
    return rows


def bootstrap_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of bootstrap_speed.json."""
    work = f"{figures['resamples']:,} resamples of {figures['images']:,} predictions, one core"
    scipy = figures["scipy_accuracy_seconds"]["median"]
    return [
        (
            f"Intervals of accuracy and macro F1: {work}",
            "at most 2 s",
            f"{seconds_in_words(figures['accuracy_and_f1_seconds'])}; of the accuracy alone, image by image in SciPy: "
            f"{scipy:.1f} s",
        ),
        (
            f"Intervals of every score of {figures['models']} models: {work}",
            "",
            seconds_in_words(figures["every_score_seconds"]),
        ),
    ]


def box_augmentation_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of box_augmentation.json."""
    rates = {
        name: round(figures[f"{name}_pictures_per_second"]["median"])
        for name in ("kinglet", "torchvision", "kinglet_with_mosaics")
    }
    times = figures["times_torchvision"]
    return [
        (
            f"Boxes augmented beside torchvision {figures['torchvision_version']}, {figures['size']} px, one core",
            "at least as fast",
            f"**{times['median']:.1f} times** ({times['low']:.1f} to {times['high']:.1f}): {rates['kinglet']} beside "
            f"{rates['torchvision']} pictures/s; with mosaics, which torchvision does not make, "
            f"{rates['kinglet_with_mosaics']}",
        )
    ]


def robustness_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of robustness_speed.json."""
    images = f"{figures['images']:,} images of {figures['image_size']} px"
    what = f"Robustness: {figures['corruptions']} corruptions of {images}, {counted(len(figures['models']), 'model')}"
    measured = (
        f"**{duration(figures['wall_seconds'])}**, {figures['peak_memory_mb'] / 1000:.1f} GB; the corruptions alone "
        f"{figures['corruption_us_per_image'] / figures['corruptions']:.0f} µs each, on one processor"
    )
    return [(what, "at most 6 min and 4 GB", measured)]


def adaptation_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of adaptation.json: every method on every model."""
    rows = []
    for name, of_model in figures["models"].items():
        before, source = of_model["target_accuracy"]["value"], of_model["source_accuracy"]["value"]
        for method, found in of_model["methods"].items():
            used = ADAPTATIONS[method].format(**of_model["images"])
            what = f"Another camera, made ({100 * source:.1f} to {100 * before:.1f} %): {name}, {used}"
            recovered, forgotten = found["recovered"], found["source_change"]
            measured = (
                f"**{100 * recovered['value']:.0f} % won back** ({100 * recovered['low']:.0f} to "
                f"{100 * recovered['high']:.0f}): {100 * found['target_accuracy']['value']:.1f} %; the images it came "
                f"from {100 * forgotten['value']:+.1f} points"
            )
            rows.append((what, "at least half of what the change cost", measured))
    return rows
