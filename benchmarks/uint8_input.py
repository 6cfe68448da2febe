"""What an int8 file gains by taking pixels: latency at batch 1 of preparing one image and of the network.

What: networks with random weights in int8, as a file that takes normalized floats and as one that takes pixels, with
the same integers behind the input. In turns, on one thread: the preparation of an image that has its size already,
the network, and both together; medians over all runs, in microseconds. And whether the answers are the same.

    .venv/bin/python -m benchmarks.uint8_input

Expected time on 2 cores: about 1 minute.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from torch import nn

from benchmarks.results import RESULTS, shown_command, write_result
from kinglet.compression.calibration import FixedRange, stream_histograms
from kinglet.compression.pixel_input import pixel_ranges, share_normalization, take_pixels
from kinglet.compression.quantization import quantize_static
from kinglet.models.efficientnet_lite import efficientnet_lite_spec
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import InvertedResidualNet
from kinglet.models.registry import GRAY_MEAN, GRAY_STD, IMAGENET_MEAN, IMAGENET_STD
from kinglet.models.residual_cnn import ResidualCnn, ResidualCnnSpec, ResidualStage
from kinglet.runtime.latency import time_in_turns
from kinglet.runtime.preprocessing import Preprocessing, model_input, normalize
from kinglet.runtime.sessions import open_session, run
from tasks.stage import exit_code_of

STAGES = (ResidualStage(16, 2, (16,)), ResidualStage(32, 2, (32, 32)), ResidualStage(64, 2, (64, 64)))
CALIBRATION_IMAGES = 32


def residual(channels: int) -> nn.Module:
    """Return a student like residual-16."""
    return ResidualCnn(ResidualCnnSpec(channels, STAGES, 10))


def lite(channels: int) -> nn.Module:
    """Return EfficientNet-Lite0."""
    return InvertedResidualNet(efficientnet_lite_spec(1.0, 1.0, channels, 10, 0.0))


# Name: the network, and the edge of its images in pixels and their channels.
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int, int]] = {
    "residual-16, 28 px, gray": (residual, 28, 1),
    "residual-16, 64 px, RGB": (residual, 64, 3),
    "EfficientNet-Lite0, 48 px, gray": (lite, 48, 1),
    "EfficientNet-Lite0, 96 px, RGB": (lite, 96, 3),
}


def int8_files(network: nn.Module, size: int, channels: int) -> dict[str, tuple[onnx.ModelProto, Preprocessing]]:
    """Return {name: (file, how images are prepared for it)} of a network: of both kinds, and one to compare with."""
    mean, std = (GRAY_MEAN, GRAY_STD) if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    preprocessing = Preprocessing(size, channels, "stretch", tuple(mean), tuple(std))
    plain = to_onnx(network, size, channels, {})
    shared = share_normalization(plain, preprocessing)
    assert shared is not None
    model, alike = shared
    packed = images_of(size, channels)
    fixed = {name: FixedRange(*of) for name, of in pixel_ranges(alike).items()}
    histograms = stream_histograms(model, normalize(packed, alike))
    quantized = quantize_static(model, {**histograms, **fixed}, "minmax")
    # What the file was before it took pixels: made from the network as it is.
    before = quantize_static(plain, stream_histograms(plain, normalize(packed, preprocessing)), "minmax")
    return {
        "floats": (before, preprocessing),
        "same integers": (quantized, alike),
        "pixels": (take_pixels(quantized, alike), replace(alike, takes_pixels=True)),
    }


def images_of(size: int, channels: int) -> NDArray[np.uint8]:
    """Return noise."""
    return np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, size, size, channels), np.uint8)


def prepare_and_run(session: InferenceSession, packed: NDArray[np.uint8], preprocessing: Preprocessing) -> Any:
    """Return the logits of packed images."""
    return run(session, model_input(packed, preprocessing))


def measure_one(network: nn.Module, size: int, channels: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one network."""
    packed = images_of(size, channels)
    one = packed[:1]
    answers: dict[str, NDArray[np.float32]] = {}
    actions: dict[str, Callable[[], Any]] = {}
    for name, (model, preprocessing) in int8_files(network, size, channels).items():
        session, tensor = (
            open_session(model.SerializeToString(), threads=1, exact_sums=False),
            model_input(one, preprocessing),
        )
        answers[name] = run(session, model_input(packed, preprocessing))
        if name != "same integers":
            actions[f"{name}, prepare"] = partial(model_input, one, preprocessing)
            actions[f"{name}, network"] = partial(run, session, tensor)
            actions[f"{name}, together"] = partial(prepare_and_run, session, one, preprocessing)
    rounds = time_in_turns(actions, seconds)
    medians = {name: round(1000 * float(np.median(np.concatenate(of))), 1) for name, of in rounds.items()}
    # Round by round, so that what else the machine does falls on both.
    ratios = [
        float(np.median(pixels) / np.median(floats))
        for pixels, floats in zip(rounds["pixels, together"], rounds["floats, together"], strict=True)
    ]
    return {
        "median_us": medians,
        "pixels_over_floats": [round(float(value), 3) for value in np.quantile(ratios, [0.25, 0.5, 0.75])],
        "same_answers": bool(np.array_equal(answers["same integers"], answers["pixels"])),
    }


def measure(options: argparse.Namespace) -> None:
    """Measure all networks and write the result."""
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    figures = {
        name: measure_one(build(channels).eval(), size, channels, options.seconds)
        for name, (build, size, channels) in NETWORKS.items()
    }
    command = shown_command("uint8_input", sys.argv[1:])
    path = write_result(
        options.results.resolve(),
        "uint8_input",
        command=command,
        repetitions=1,
        figures={"networks": figures, "load_average_before": round(load, 1), "seconds_per_action": options.seconds},
    )
    print(f"written: {path}", file=sys.stderr)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Latency of int8 files that take pixels, beside those that take floats."
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each action (default: 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
