"""The champion: the bundle in production, kept in a folder of the checkout, which the challenger has to stand up to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kinglet.atomic import atomic_folder
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.runtime.engines import RUNTIMES
from kinglet.runtime.preprocessing import Preprocessing
from tasks.benchmark import Subject
from tasks.bundle_answers import SortingPredictor, open_sorting
from tasks.opened_models import digest_of


def open_champion(folder: Path, problem: str = bundles.CLASSIFICATION) -> SortingPredictor | None:
    """Return the champion, opened; None if the folder holds no bundle.

    Raises KingletError if the folder does not exist, or its bundle is damaged or of another problem.
    """
    if not folder.is_dir():
        raise KingletError(
            f"gate.champion: the folder {folder} does not exist.",
            "Name a folder with the bundle in production, or an empty folder if there is none yet.",
        )
    return open_sorting(folder, problem) if holds_bundle(folder) else None


def holds_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, or what is left of one."""
    return any((folder / name).exists() for name in (bundles.CHECKSUMS, bundles.MODEL, bundles.PREPROCESSING))


def bundle_digest(folder: Path) -> str:
    """Return the SHA-256 of a bundle's checksums, which stands for the whole bundle; empty if there is none."""
    checksums = folder / bundles.CHECKSUMS
    return bundles.sha256_of(checksums) if checksums.is_file() else ""


def opened_model(folder: Path, bundle: SortingPredictor) -> tuple[str, Preprocessing, tuple[str, ...]]:
    """Return what a bundle's answers follow from: the digest of the files opened here, its inputs and its outputs."""
    files = [folder / name for name in (bundle.model_file, *bundles.NEEDED_BY.get(bundle.problem, ()))]
    return digest_of(files), bundle.preprocessing, tuple(bundle.classes)


def subject_of(folder: Path, bundle: SortingPredictor) -> Subject:
    """Return a bundle's model as `benchmark` measures models: the files that its runtime opens everywhere."""
    size = bundle.preprocessing.input_size
    names = (*RUNTIMES[bundle.runtime].files, *bundles.NEEDED_BY.get(bundle.problem, ()))
    files = [folder / name for name in names]
    return Subject(bundle.runtime, files, (bundle.preprocessing.channels, size, size))


def other_classes(champion: Sequence[str], classes: Sequence[str]) -> str:
    """Return, in one sentence, why a champion that knows other classes cannot be compared; empty if it can.

    The order of the classes does not matter: they are told apart by their names.
    """
    only_champion, only_challenger = sorted(set(champion) - set(classes)), sorted(set(classes) - set(champion))
    if not only_champion and not only_challenger:
        return ""
    clauses = [
        f"only the {word} knows {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        for word, names in (("champion", only_champion), ("challenger", only_challenger))
        if names
    ]
    return (
        f"The champion cannot be compared, it sorts into other classes: {'; '.join(clauses)}. "
        "Name an empty folder in gate.champion to hold the challenger against its teacher."
    )


def replace_champion(bundle: Path, champion: Path) -> None:
    """Put a bundle into the champion's folder in place of the one there; other files stay.

    All or nothing: the folder is made anew beside the old one, checked, and takes its place.
    Raises KingletError if the bundle is damaged.
    """
    names = bundles.verify(bundle)
    replaced = {bundles.CHECKSUMS, *listed_files(champion)}
    with atomic_folder(champion) as new:
        for file in sorted(champion.rglob("*")):
            name = file.relative_to(champion)
            if file.is_file() and name.as_posix() not in replaced:
                copy(file, new / name)
        for listed in (*names, bundles.CHECKSUMS):
            copy(bundle / listed, new / listed)
        bundles.verify(new)


def listed_files(folder: Path) -> list[str]:
    """Return the files that a bundle's checksums list, whole or not; none where there is no bundle."""
    checksums = folder / bundles.CHECKSUMS
    return list(bundles.read_checksums(checksums)) if checksums.is_file() else []


def copy(file: Path, target: Path) -> None:
    """Copy a file, with the folders that it lies in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
