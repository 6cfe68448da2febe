"""`params.yaml` as typed values: parsed once per process, unknown keys and wrong values refused by path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from kinglet.errors import KingletError
from tasks.clip_settings import Clips, Recurrent
from tasks.compression_settings import Export, Prune, Quantize
from tasks.data_settings import Check, Data, Plan, Split
from tasks.evidence_settings import Benchmark, Compare, Evaluate, Gate, Monitor, Report, Robustness, Select, Track
from tasks.offered_settings import refuse_what_is_not_offered
from tasks.parameter_conflicts import (
    refuse_augmentations_of_another_problem,
    refuse_hints_of_unknown_networks,
    refuse_missing_runtimes,
    refuse_no_epochs_of_another_problem,
    refuse_students_of_another_problem,
    refuse_wrong_models,
)
from tasks.settings_section import Section
from tasks.training_settings import Adapt, Crossvalidate, Distill, Domains, Finetune, Search

PARAMS_FILE = Path("params.yaml")


class Parameters(Section):
    problem: Literal["classification", "detection", "segmentation", "tracking", "video"] = "classification"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data
    clips: Clips = Clips()
    check: Check = Check()
    split: Split = Split()
    finetune: Finetune
    recurrent: Recurrent = Recurrent()
    crossvalidate: Crossvalidate = Crossvalidate()
    search: Search = Search()
    distill: Distill = Distill()
    prune: Prune = Prune()
    adapt: Adapt = Adapt()
    domains: Domains = Domains()
    quantize: Quantize = Quantize()
    export: Export = Export()
    plan: Plan = Plan()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    robustness: Robustness = Robustness()
    benchmark: Benchmark = Benchmark()
    select: Select = Select()
    gate: Gate = Gate()
    track: Track = Track()
    monitor: Monitor = Monitor()
    report: Report = Report()

    @property
    def network(self) -> str:
        """The problem that networks are made for: what is tracked is what a detector finds."""
        return "detection" if self.problem == "tracking" else self.problem

    @property
    def several(self) -> str:
        """What the data set consists of, as sentences call it."""
        return "clips" if self.network == "video" else "images"


def load_parameters(path: Path = PARAMS_FILE) -> Parameters:
    """Return the checked parameters of `path`.

    Raises KingletError that names the file, the key's path, what it got and what is allowed.
    """
    content = read_yaml(path)
    try:
        parameters = Parameters.model_validate(content)
    except ValidationError as error:
        raise KingletError(f"{path}: " + "; ".join(describe(item) for item in error.errors()) + ".") from None
    refuse_what_is_not_offered(parameters, path)
    refuse_augmentations_of_another_problem(parameters, path)
    refuse_no_epochs_of_another_problem(parameters, path)
    refuse_students_of_another_problem(parameters, path)
    refuse_wrong_models(parameters, path)
    refuse_hints_of_unknown_networks(parameters, path)
    refuse_missing_runtimes(parameters.export.runtimes, path)
    return parameters


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the content of a file of settings; raises KingletError if it cannot be read or holds none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KingletError(
            f"{path} does not exist.", "Run in the folder that holds dvc.yaml and params.yaml."
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise KingletError(f"{path} is no UTF-8 text file.", "Restore it with `git checkout params.yaml`.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        hint = "Indent with spaces, not with tabs." if r"\t" in problem else ""
        raise KingletError(f"{place} is not valid YAML: {problem}.", hint) from None
    if not isinstance(content, dict):
        raise KingletError(f"{path} holds no settings.", "Restore it with `git checkout params.yaml`.")
    return content


def describe(error: Any, settings: type[BaseModel] | None = None) -> str:
    """Return one clause for a pydantic error: the key's path, what it got, what is allowed.

    settings: what was to be read, for the keys that it knows; the parameters if absent.
    """
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; known here: {', '.join(known_keys(error['loc'][:-1], settings))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    allowed = error["msg"].replace("Input should be ", "").replace("Value error, ", "")
    return f"{key or 'the file'} is {error['input']!r}; allowed: {allowed}"


def known_keys(location: tuple[Any, ...], settings: type[BaseModel] | None = None) -> list[str]:
    """Return the keys of the section that `location` leads to, from the parameters or other settings."""
    section: type[BaseModel] | None = settings or Parameters
    for part in location:
        # What is no key of the section is a place in a list, or a name, of sections of its kind.
        if section and part in section.model_fields:
            section = section_in(section.model_fields[part].annotation)
    return sorted(section.model_fields) if section else []


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, alone or in a list or under names; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((section for inner in get_args(annotation) if (section := section_in(inner))), None)
