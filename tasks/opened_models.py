"""A model's files as the steps that score, time and pack it see them: opened by its runtime, and as a whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kinglet.runtime.bundles import sha256_of
from kinglet.runtime.engines import ONNXRUNTIME, Engine, open_engine
from kinglet.runtime.engines.onnxruntime import engine_of
from kinglet.runtime.preprocessing import Preprocessing
from kinglet.runtime.sessions import open_session, read_metadata
from tasks.artifacts import ModelCard


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to compute, how an image becomes its input, and the names of its classes."""

    engine: Engine
    preprocessing: Preprocessing
    classes: list[str]


def open_model(folder: Path, card: ModelCard, threads: int | None = None) -> OpenedModel:
    """Return the model in a folder, opened by its runtime; threads as for `open_engine`.

    An ONNX file that ONNX Runtime opens says its preprocessing itself; for the others their card does.
    """
    file = folder / card.file_names[0]
    if card.runtime == ONNXRUNTIME:
        session = open_session(file, threads)
        return OpenedModel(engine_of(session), *read_metadata(session))
    engine = open_engine(card.runtime, file, card.input_shape, threads)
    return OpenedModel(engine, card.preprocessing, card.classes)


def files_of(folder: Path, card: ModelCard) -> list[Path]:
    """Return the files that the model's runtime needs."""
    return [folder / name for name in card.file_names]


def digest_of(files: list[Path]) -> str:
    """Return the SHA-256 of a file, or of the list of several files' SHA-256 as `sha256sum` prints it."""
    if len(files) == 1:
        return sha256_of(files[0])
    listed = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()
