"""Settings that are right one by one and do not go together, told before anything is computed."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kinglet.errors import KingletError
from kinglet.runtime.engines import RUNTIMES
from tasks.artifacts import TEACHER, as_fast_as_pruned, searched_students, untaught
from tasks.setting_values import AUGMENTATIONS_OF, BACKBONES, NO_HINTS
from tasks.settings_section import AUTO

if TYPE_CHECKING:
    from tasks.parameters import Parameters


ON_A_BACKBONE = {"backbone": f"one of {', '.join(BACKBONES)}"}
STAGES = {"stages": "a list of stages, each with a width, a stride and its blocks"}
# What a student is, by the problem that networks are made for: in words, and its keys with what each may be, of which
# it has one. Other problems have none.
STUDENTS = {
    "classification": ("a table of stages, or a classifier on a backbone,", {**STAGES, **ON_A_BACKBONE}),
    "detection": ("a detector on a backbone", ON_A_BACKBONE),
    "segmentation": ("a segmenter on a backbone", ON_A_BACKBONE),
    "video": ("a network over clips on a backbone", ON_A_BACKBONE),
}


def refuse_augmentations_of_another_problem(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a training names an augmentation that the problem does not have."""
    known = AUGMENTATIONS_OF[parameters.network]
    of_adaptation = parameters.adapt.augment if parameters.adapt.models else AUTO
    for key, augment in (("finetune.augment", parameters.finetune.augment), ("adapt.augment", of_adaptation)):
        named = [] if augment == AUTO else augment
        unknown = [name for name in named if name not in known]
        if unknown:
            raise KingletError(
                f"{path}: {key} names {', '.join(unknown)}, which {parameters.problem} does not have.",
                f"Take some of {', '.join(known)}, or auto.",
            )


def refuse_no_epochs_of_another_problem(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if the teacher is not to be trained at all, where nothing stands behind its backbone."""
    if parameters.finetune.epochs == 0 and parameters.network != "video":
        raise KingletError(
            f"{path}: finetune.epochs is 0; allowed: auto, or a number above 0.",
            "Only problem: video trains what stands behind the backbone alone.",
        )


def refuse_students_of_another_problem(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a student lacks what its problem makes students of, or has what another one does."""
    if not parameters.distill.students:
        return
    words, own = STUDENTS[parameters.network]
    allowed = ", or ".join(f"{key}, {values}" for key, values in own.items())
    for name, student in parameters.distill.students.items():
        key, why = f"distill.students.{name}", f"problem is {parameters.problem}, and a student is {words} there"
        given = [one for one in (*STAGES, *ON_A_BACKBONE) if getattr(student, one)]
        wrong = [one for one in given if one not in own]
        if wrong:
            raise KingletError(f"{path}: {key} has {', '.join(wrong)}; {why}.", f"Put {allowed} in its place.")
        if len(given) > 1:
            raise KingletError(f"{path}: {key} has both {' and '.join(given)}; {why}.", "Leave one of them out.")
        if not given:
            raise KingletError(f"{path}: {key} lacks {' or '.join(own)}; {why}.", f"Give it {allowed}.")


def refuse_wrong_models(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if a step is to work on a model that no step before it makes, or two share a name."""
    students, searched = list(parameters.distill.students), searched_students(parameters.search.survivors)
    trained = [TEACHER, *students, *map(untaught, parameters.distill.controls), *searched]
    pruned = [name for model in parameters.prune.models for name in (f"{model}-pruned", as_fast_as_pruned(model))]
    controls = {*map(untaught, parameters.distill.controls), *map(as_fast_as_pruned, parameters.prune.models)}
    for key, names, known in (
        ("distill.controls", parameters.distill.controls, students),
        ("prune.models", parameters.prune.models, trained),
        ("adapt.models", parameters.adapt.models, [*trained, *pruned]),
        ("quantize.models", parameters.quantize.models, [*trained, *pruned]),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise KingletError(f"{path}: {key} names {', '.join(unknown)}; allowed: {', '.join(known)}.")
    for_themselves = [name for name in [*trained, *pruned] if name not in controls]
    quantized = [f"{name}-int8" for name in parameters.quantize.models or for_themselves]
    known = [*trained, *pruned, *quantized]
    unknown = [name for name in parameters.export.models if name not in known]
    if unknown:
        raise KingletError(f"{path}: export.models names {', '.join(unknown)}; allowed: {', '.join(known)}.")
    exported = [
        f"{name}-{runtime}" for name in parameters.export.models or known for runtime in parameters.export.runtimes
    ]
    twice = [name for name, count in Counter([*known, *exported]).items() if count > 1]
    if twice:
        raise KingletError(
            f"{path}: two models would be called {', '.join(twice)}.",
            f"Give a student in distill.students another name ({TEACHER!r} is the fine-tuned model, and -pruned, "
            "-int8 and the runtime's name are appended), and name a model once in prune.models, quantize.models and "
            "export.models, and a runtime once in export.runtimes.",
        )


def refuse_hints_of_unknown_networks(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if students are to learn from the feature maps of a network whose parts are not known."""
    if parameters.distill.hints != NO_HINTS and parameters.finetune.backbone not in BACKBONES:
        raise KingletError(
            f"{path}: distill.hints is {parameters.distill.hints}, but {parameters.finetune.backbone} of another "
            "model zoo shows no feature maps.",
            f"Set distill.hints to none, or finetune.backbone to one of {', '.join(BACKBONES)}.",
        )


def refuse_missing_runtimes(runtimes: list[str], path: Path) -> None:
    """Raise KingletError if a runtime to export for is not installed: before the trainings, not after them."""
    for name in runtimes:
        if find_spec(RUNTIMES[name].module) is None:
            raise KingletError(
                f"{path}: export.runtimes names {name}, and {RUNTIMES[name].title} is not installed.",
                f"Install it with `pip install 'kinglet[{name}]'` (in a checkout: `pip install '.[{name}]'`).",
            )
