"""Step `bundle`: pack the chosen model with everything needed to serve it, and open it once to prove that it works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import read_json, write_bytes, write_json, write_text
from kinglet.compression.saturation import emulated_logits, unknown_operators
from kinglet.runtime import bundles
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from kinglet.runtime.predictor import Predictor
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import gather_logits, logits_of, open_session, softmax
from kinglet.runtime.vnni import products_saturate
from tasks.artifacts import BENCHMARK, BUNDLE, EVALUATE, SELECT, SPLIT, ModelCard, packed_images, read_card
from tasks.image_tables import read_parquet
from tasks.opened_models import OpenedModel, files_of, open_model
from tasks.parameters import Parameters
from tasks.stage import run_stage

GOLDEN_IMAGES = 10


def run(parameters: Parameters) -> None:  # noqa: ARG001 (every step takes the parameters)
    """Write the bundle of the chosen model; its checksums come last, so a half-written one is never opened."""
    choice = read_json(SELECT / "choice.json")
    chosen = Path(choice["model"])
    # Nothing of an earlier bundle may stay: the checksums would seal it in.
    shutil.rmtree(BUNDLE, ignore_errors=True)
    card = read_card(chosen.parent)
    for file in files_of(chosen.parent, card):
        write_bytes(BUNDLE / file.name, file.read_bytes())
    model = open_model(BUNDLE, card, threads=1)
    if card.runtime == ONNXRUNTIME and (other := chosen.parent / bundles.WITHOUT_VNNI).is_file():
        write_bytes(BUNDLE / other.name, other.read_bytes())
    write_json(BUNDLE / bundles.PREPROCESSING, {**model.preprocessing.to_dict(), bundles.RUNTIME: card.runtime})
    write_json(BUNDLE / bundles.LABELS, model.classes)

    rows, labels = golden_rows(GOLDEN_IMAGES)
    packed = np.load(packed_images(model.preprocessing.input_size), mmap_mode="r")
    images = np.asarray(packed[rows])
    expected = golden_answers(model, card, images)
    write_bytes(BUNDLE / bundles.GOLDEN, bundles.npz_bytes({"images": images, "labels": labels, **expected}))
    write_text(BUNDLE / bundles.CARD, model_card(card, model.preprocessing, choice))
    bundles.seal(BUNDLE)
    Predictor(BUNDLE, threads=1).check_golden(BUNDLE / bundles.GOLDEN)


def golden_answers(model: OpenedModel, card: ModelCard, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the probabilities that the bundle's model is to give for packed images, under the names of golden.npz.

    Those of another runtime than ONNX Runtime come with the tolerance that they are to be compared with.
    """
    if card.runtime != ONNXRUNTIME:
        rows = np.arange(len(images))
        logits = gather_logits(model.engine.run, len(model.classes), images, rows, model.preprocessing)
        tolerance = bundles.INT8_TOLERANCE if card.precision == "int8" else bundles.GOLDEN_TOLERANCE
        return {bundles.EXACT: softmax(logits), bundles.TOLERANCE: np.array([tolerance])}
    file, other = BUNDLE / bundles.MODEL, BUNDLE / bundles.WITHOUT_VNNI
    golden = {bundles.EXACT: answers(file, images, model.preprocessing, saturate=False)}
    if card.precision == "int8" and not unknown_operators(onnx.load(file)):
        opened = other if other.is_file() else file
        golden[bundles.SATURATED] = answers(opened, images, model.preprocessing, saturate=True)
    return golden


def answers(file: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, saturate: bool) -> NDArray[np.float32]:
    """Return a model's probabilities for packed images, on x86 without VNNI if `saturate`, elsewhere if not."""
    rows = np.arange(len(images))
    model = onnx.load(file)
    if saturate == products_saturate() or unknown_operators(model):
        return softmax(logits_of(open_session(file, threads=1), images, rows, preprocessing))
    return softmax(emulated_logits(model, images, rows, preprocessing, saturate=saturate)[0])


def golden_rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and labels of `count` test images, one class after the other, in order of the data set."""
    table = read_parquet(SPLIT / "manifest.parquet", ["index", "label_index"], "test")
    rows, labels = table["index"].to_numpy().astype(np.int64), table["label_index"].to_numpy().astype(np.int64)
    order = np.lexsort((rows, labels))
    sorted_labels = labels[order]
    rank_in_class = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    taken = order[np.lexsort((sorted_labels, rank_in_class))][:count]
    return rows[taken], labels[taken]


def model_card(card: ModelCard, preprocessing: Preprocessing, choice: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    all_scores = read_json(EVALUATE / "scores.json")
    scores, teacher = all_scores["models"][card.name], all_scores["teacher"]
    benchmark = read_json(BENCHMARK / "latency.json")
    latency, teacher_latency = benchmark["models"][card.name], benchmark["models"][teacher]
    counts = read_json(SPLIT / "counts.json") if (SPLIT / "counts.json").is_file() else {}
    test = scores["test"]
    images = ", ".join(f"{sum(of_class.values()):,} {split}" for split, of_class in sorted(counts.items()))
    worst = sorted(test["per_class"].items(), key=lambda item: (item[1]["f1"], item[0]))[:3]
    threads = f"{benchmark['threads']} thread{'s' if benchmark['threads'] > 1 else ''}"
    return f"""# {card.name}

Sorts an image into one of {len(card.classes)} classes: {", ".join(card.classes)}.

## Scores

| | validation | test |
|---|---|---|
| images | {scores["validation"]["n"]:,} | {test["n"]:,} |
| accuracy | {percent(scores["validation"]["accuracy"])} | {percent(test["accuracy"])} |
| F1, macro | {percent(scores["validation"]["f1_macro"])} | {percent(test["f1_macro"])} |
| points to the teacher | {points(scores["difference_to_teacher"]["validation"])} \
| {points(scores["difference_to_teacher"]["test"])} |
| expected calibration error | {scores["validation"]["ece"]:.3f} | {test["ece"]:.3f} |

In brackets: intervals from resampling the images. The model was chosen on the validation images; the test
images chose nothing. Weakest classes on the test images (F1): \
{", ".join(f"{label} {100 * of_class['f1']:.1f} %" for label, of_class in worst)}.

## Speed and size

{latency["p50_ms"]:.3g} ms per image at the median ({latency["p50_low_ms"]:.3g} to {latency["p50_high_ms"]:.3g}), \
{latency["p99_ms"]:.3g} ms at the 99th percentile, batch 1, {threads}; \
{teacher_latency["p50_ms"] / latency["p50_ms"]:.1f} times as fast as the teacher in the same measurement. \
{latency["size_bytes"] / 1e6:.2f} MB on disk, {latency["peak_memory_mb"]:.0f} MB of memory above an empty runtime. \
Measured on {benchmark["device"]["cpu"]} with \
{latency.get("runtime", f"onnxruntime {benchmark['device']['onnxruntime']}")}.

{other_processors(scores)}{other_runtime(card)}## How it was made

Step `{card.step}`{f" from `{card.parent}`" if card.parent else ""}, {card.precision}, {card.parameters:,} parameters. \
{choice["reason"]}

## Input

uint8 image, {"gray" if preprocessing.channels == 1 else "RGB"}, any size; brought to \
{preprocessing.input_size} x {preprocessing.input_size} pixels ({preprocessing.fit}) and normalized by \
`kinglet.runtime` as `preprocessing.json` says.

## Data

{len(card.classes)} classes{f"; images: {images}" if images else ""}. Names and order: `labels.json`.

## Limits

- It answers with one of its classes for any image, also for one that shows none of them.
- The scores hold for images like those of the test split; other cameras, light or framing were not tested.
- Latency was measured on the machine named above and is another on any other.
- Neither robustness to disturbed images nor fairness between groups of people was examined.
"""


def other_processors(scores: dict[str, Any]) -> str:
    """Return the model card's words on x86 processors without VNNI; nothing for a model that has no int8 there."""
    emulated = scores.get("without_vnni")
    if not emulated:
        return ""
    other = emulated["file"] != bundles.MODEL
    said = (
        f"`{bundles.MODEL}` alone would have {percent(emulated['model_onnx'])} there; `{emulated['file']}` is opened "
        "in its place."
        if other
        else f"The same file, `{bundles.MODEL}`, is opened there."
    )
    return f"""## x86 processors without VNNI

They add 8-bit products in 16 bits, which can saturate. Emulated on {emulated["n"]:,} test images, accuracy there is \
{percent(emulated["accuracy"])}. {said}

"""


def other_runtime(card: ModelCard) -> str:
    """Return the model card's words on a model that was converted for another runtime; nothing for an ONNX file."""
    if card.runtime == ONNXRUNTIME:
        return ""
    runtime, fidelity = RUNTIMES[card.runtime], card.notes["fidelity"]
    tolerance = bundles.INT8_TOLERANCE if card.precision == "int8" else bundles.GOLDEN_TOLERANCE
    differs = f" The arithmetic differs: {card.notes['arithmetic']}" if "arithmetic" in card.notes else ""
    return f"""## {runtime.title}

Converted from the ONNX file of `{card.parent}` and computed by {runtime.title} \
({", ".join(f"`{name}`" for name in runtime.files)}). On {fidelity["images"]:,} validation images it gives that \
file's class for {100 * fidelity["agreement"]:.2f} %; its logits differ by {fidelity["mean_difference"]:.2g} on \
average and by {fidelity["largest_difference"]:.2g} at most, where they spread by \
{fidelity["spread"]:.2g}.{differs} Its probabilities for the golden images may differ by {tolerance:g} elsewhere.

"""


def percent(interval: dict[str, float]) -> str:
    """Return a share with its interval, in percent."""
    return f"{100 * interval['value']:.2f} % ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})"


def points(interval: dict[str, float]) -> str:
    """Return a difference of shares with its interval, in percentage points with a sign."""
    return f"{100 * interval['value']:+.2f} ({100 * interval['low']:+.2f} to {100 * interval['high']:+.2f})"


if __name__ == "__main__":
    run_stage(run)
