"""Step `export`: convert models for other runtimes, and hold each against its ONNX file, image by image."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kinglet.atomic import atomic_folder, write_bytes, write_json
from kinglet.compression.pixel_input import take_floats
from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES, Engine, open_engine, version_of
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.processors import available_processors
from kinglet.runtime.sessions import gather_logits, open_as_written, open_session
from tasks.artifacts import (
    ARTIFACTS,
    EXPORT,
    MODEL_STEPS,
    SPLIT,
    ModelCard,
    model_folders,
    packed_images,
    read_card,
    refuse_unknown_models,
    write_card,
)
from tasks.image_tables import read_parquet
from tasks.opened_models import files_of
from tasks.parameters import Parameters
from tasks.progress import progress
from tasks.stage import run_stage

# What a converted model must answer as its float ONNX file does: float32 differs in the last digits only.
LEAST_AGREEMENT = 0.995
# Images on which an int8 file is also computed as it is written, which takes several times as long.
IMAGES_AS_WRITTEN = 500
SUMMARY = EXPORT / "export.json"


@dataclass(frozen=True)
class Original:
    """A model's ONNX file, its card, and its logits for the validation images, rows of the packed ones."""

    file: Path
    card: ModelCard
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]


def run(parameters: Parameters) -> None:
    """Write a folder for every model and runtime that the settings name, and what became of each to export.json.

    Where the settings name no models, all are taken, and those that a runtime cannot read are left out, with the
    reason; a model that is named must succeed. Nothing of an earlier run stays.
    """
    settings = parameters.export
    shutil.rmtree(EXPORT, ignore_errors=True)
    exported: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for runtime in settings.runtimes:
        version_of(runtime)  # one that cannot be imported shall not be found out after the work for another
    if settings.runtimes:
        exported, left_out = export_all(
            pick_models(settings.models), settings.runtimes, must_succeed=bool(settings.models)
        )
    write_json(SUMMARY, {"exported": exported, "left_out": left_out})


def pick_models(names: list[str]) -> dict[str, Path]:
    """Return the folders of the models of these names, all where there are none.

    Raises KingletError for a name that no step has made.
    """
    folders = {folder.name: folder for folder in model_folders(*(step for step in MODEL_STEPS if step != EXPORT))}
    if not folders:
        raise KingletError(
            f"{ARTIFACTS} holds no models to export.", "Run `dvc repro`, which runs what is missing first."
        )
    refuse_unknown_models("export.models", names, folders)
    return {name: folders[name] for name in names or folders}


def export_all(
    folders: dict[str, Path], runtimes: list[str], *, must_succeed: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Convert every model for every runtime; return {name: notes} of those, and {name: reason} of the rest.

    must_succeed: raise the reason instead.
    """
    exported: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    rows = read_parquet(SPLIT / "manifest.parquet", ["index"], "validation")["index"].to_numpy().astype(np.int64)
    if not len(rows):
        raise KingletError("The validation split has no images to compare models on.", "Raise split.validation.")
    with progress("export") as report:
        for number, folder in enumerate(folders.values()):
            original = read_original(folder, rows)
            for place, runtime in enumerate(runtimes):
                name = f"{original.card.name}-{runtime}"
                report(number * len(runtimes) + place, len(folders) * len(runtimes), name)
                try:
                    exported[name] = export_model(original, runtime, EXPORT / name)
                except UnreadableError as error:
                    if must_succeed:
                        raise
                    left_out[name] = error.message
                    print(f"warning: {name} is left out: {error.message}", file=sys.stderr)
        report(len(folders) * len(runtimes), len(folders) * len(runtimes))
    return exported, left_out


class UnreadableError(KingletError):
    """A runtime cannot read a model; where all were asked for, the others go on."""


def read_original(folder: Path, rows: NDArray[np.int64]) -> Original:
    """Return a model with its logits for these rows of packed images."""
    card, file = read_card(folder), folder / RUNTIMES[ONNXRUNTIME].files[0]
    engine = engine_of(open_session(file, threads=1))
    return Original(file, card, rows, logits_of_rows(engine, card, rows))


def logits_of_rows(engine: Engine, card: ModelCard, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the logits of these rows of packed images, float32 (n, n_classes)."""
    packed = np.load(packed_images(card.input_size), mmap_mode="r")
    workers = available_processors()
    return gather_logits(engine.run, len(card.classes), packed, rows, card.preprocessing, workers=workers)


def export_model(original: Original, runtime: str, output: Path) -> dict[str, Any]:
    """Write a model's files for a runtime, and its card, to a folder; return the card's notes.

    Raises UnreadableError if the runtime cannot read the model, and KingletError if its answers are others.
    """
    # Here, as a run that exports nothing needs none of it.
    from kinglet.conversion import CONVERTERS

    card = replace(
        original.card,
        takes_pixels=False,
        name=output.name,
        step=EXPORT.name,
        parent=original.card.name,
        runtime=runtime,
        notes={},
    )
    with atomic_folder(output) as temporary:
        try:
            # Other runtimes' inputs are floats; the integers behind them are the same.
            source = as_it_takes_floats(original.file, temporary)
            CONVERTERS[runtime](source, temporary)
            if source != original.file:
                source.unlink()
            engine = open_engine(runtime, files_of(temporary, card)[0], card.input_shape, threads=1)
        except KingletError as error:
            said = error.message.replace(temporary.as_posix(), original.file.parent.as_posix())
            raise UnreadableError(
                said, "Take it out of export.models, or the runtime out of export.runtimes."
            ) from error
        notes = compare(original, card, engine)
        write_card(temporary, replace(card, notes=notes))
    return notes


def as_it_takes_floats(file: Path, folder: Path) -> Path:
    """Return a file of the model whose input is floats: the file itself, or one that is written into the folder."""
    model = onnx.load(file)
    floats = take_floats(model)
    if floats is model:
        return file
    written = folder / f"floats-{file.name}"
    write_bytes(written, floats.SerializeToString())
    return written


def compare(original: Original, card: ModelCard, engine: Engine) -> dict[str, Any]:
    """Return how far a converted model's answers are from its ONNX file's, and for int8 which arithmetic differs.

    card: of the converted model. Raises KingletError if a float model agrees on fewer than LEAST_AGREEMENT of the
    images.
    """
    from kinglet.conversion.arithmetic import INT8_ARITHMETIC, logits_step
    from kinglet.conversion.fidelity import compare_logits

    runtime, name = card.runtime, original.card.name
    title = RUNTIMES[runtime].title
    logits = logits_of_rows(engine, card, original.rows)
    if not np.isfinite(logits).all():
        raise KingletError(f"{title} gives NaN or infinite logits for {name}.", "Take it out of export.models.")
    fidelity = compare_logits(original.logits, logits)
    notes: dict[str, Any] = {"runtime_version": version_of(runtime), "fidelity": fidelity.to_dict()}
    agreement = f"{title} gives {name}'s class for {100 * fidelity.agreement:.2f} % of the validation images"
    if original.card.precision == "int8":
        few = original.rows[:IMAGES_AS_WRITTEN]
        written = logits_of_rows(engine_of(open_as_written(original.file.read_bytes())), original.card, few)
        notes |= {
            "arithmetic": INT8_ARITHMETIC[runtime],
            "logits_step": logits_step(original.file),
            "fidelity_to_file_as_written": compare_logits(written, logits[: len(few)]).to_dict(),
            "fidelity_of_onnxruntime_to_file_as_written": compare_logits(
                written, original.logits[: len(few)]
            ).to_dict(),
        }
        if fidelity.agreement < LEAST_AGREEMENT:
            print(f"warning: {agreement}: {INT8_ARITHMETIC[runtime]}", file=sys.stderr)
    elif fidelity.agreement < LEAST_AGREEMENT:
        raise KingletError(
            f"{agreement}, at least {100 * LEAST_AGREEMENT:g} % are needed of a float model.",
            f"Another version of {title} may compute it; else take it out of export.models.",
        )
    return notes


if __name__ == "__main__":
    run_stage(run)
