"""`params.yaml` as typed values: parsed once per process, unknown keys and wrong values refused by path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kinglet.errors import KingletError

PARAMS_FILE = Path("params.yaml")

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
InputSize = Annotated[int, Field(ge=16, le=1024)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    source: str
    images: str
    ignore_classes: list[str] = []
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    color: Literal["auto", "gray", "rgb"] = "auto"
    max_pixels: Count = 100_000_000


class Check(Section):
    """Thresholds of the data checks; shares are of all images."""

    min_images_per_class: Annotated[int, Field(ge=3)] = 10
    max_class_imbalance: Annotated[float, Field(ge=1)] = 10.0
    max_unreadable: Share = 0.05
    max_conflicting: Share = 0.05
    near_duplicate_distance: Annotated[int, Field(ge=0, le=8)] = 2
    outlier_deviations: Positive = 5.0
    drift_threshold: Positive = 0.2
    quarantine_conflicting_labels: bool = True


class Split(Section):
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    use_given: bool = True

    @model_validator(mode="after")
    def leaves_training_images(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must stay below 1")
        return self


class Phase(Section):
    """A part of the training at one resolution; `input_size` 0 means the model's own."""

    epochs: Positive
    input_size: Annotated[int, Field(ge=0, le=1024)] = 0


class Finetune(Section):
    backbone: str
    input_size: InputSize
    phases: Annotated[list[Phase], Field(min_length=1)]
    head_epochs: Annotated[float, Field(ge=0)] = 0.1
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.06
    label_smoothing: Share = 0.05
    dropout: Share = 0.2
    augment: list[str] = ["flip", "shift"]
    ema_decay: Share = 0.99
    patience: Count = 5
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Stage(Section):
    width: Count
    stride: Annotated[int, Field(ge=1, le=4)]
    blocks: Annotated[int, Field(ge=0)] = 1


class Student(Section):
    input_size: InputSize
    stages: Annotated[list[Stage], Field(min_length=1)]


class Distill(Section):
    students: Annotated[dict[Name, Student], Field(min_length=1)]
    epochs: Positive
    batch_size: Count = 256
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.05
    temperature: Positive = 2.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.9
    augment: list[str] = ["flip", "shift"]
    ema_decay: Share = 0.99
    patience: Count = 1000


class Prune(Section):
    models: list[str] = []
    channel_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    importance: Literal["l2", "taylor"] = "taylor"
    round_to: Count = 8
    epochs: Positive = 2
    batch_size: Count = 256
    learning_rate: Positive = 1e-3


class Quantize(Section):
    models: list[str] = []
    calibration_images: Count = 512
    methods: Annotated[list[str], Field(min_length=1)] = ["minmax", "percentile", "entropy"]
    weight_bits: Annotated[list[Literal[7, 8]], Field(min_length=1)] = [8, 7]
    tolerance: Share = 0.005
    max_float_layers: Annotated[int, Field(ge=0)] = 4
    qat_epochs: Annotated[float, Field(ge=0)] = 1
    qat_learning_rate: Positive = 2e-4


class Evaluate(Section):
    top_k: Count = 3
    calibration_bins: Count = 15
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Benchmark(Section):
    threads: Count = 1
    batch_sizes: Annotated[list[Count], Field(min_length=1)] = [1, 32]
    seconds_per_model: Positive = 2


class Select(Section):
    latency_ms: Positive | None = None
    size_mb: Positive | None = None
    max_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] = 0.01


class Report(Section):
    title: str = "Kinglet"
    sample_errors: Annotated[int, Field(ge=0, le=200)] = 24


class Parameters(Section):
    problem: Literal["classification"] = "classification"
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    check: Check = Check()
    split: Split = Split()
    finetune: Finetune
    distill: Distill
    prune: Prune = Prune()
    quantize: Quantize = Quantize()
    evaluate: Evaluate = Evaluate()
    benchmark: Benchmark = Benchmark()
    select: Select = Select()
    report: Report = Report()

    @property
    def packed_sizes(self) -> list[int]:
        """Edge lengths in pixels of every packed image file the run needs, ascending."""
        sizes = {self.finetune.input_size, *(phase.input_size for phase in self.finetune.phases)}
        sizes |= {student.input_size for student in self.distill.students.values()}
        return sorted(sizes - {0})


def load_parameters(path: Path = PARAMS_FILE) -> Parameters:
    """Return the checked parameters of `path`.

    Raises KingletError that names the file, the key's path, what it got and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KingletError(
            f"{path} does not exist.", "Run in the folder that holds dvc.yaml and params.yaml."
        ) from None
    except yaml.YAMLError as error:
        raise KingletError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise KingletError(f"{path} holds no settings.", "Restore it with `git checkout params.yaml`.")
    try:
        return Parameters.model_validate(content)
    except ValidationError as error:
        raise KingletError(f"{path}: " + "; ".join(describe(item) for item in error.errors()) + ".") from None


def describe(error: Any) -> str:
    """Return one clause for a pydantic error: the key's path, what it got, what is allowed."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; known here: {', '.join(known_keys(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    allowed = error["msg"].replace("Input should be ", "").replace("Value error, ", "")
    return f"{key or 'the file'} is {error['input']!r}; allowed: {allowed}"


def known_keys(location: tuple[Any, ...]) -> list[str]:
    """Return the keys of the section that `location` leads to."""
    section: Any = Parameters
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            if part not in section.model_fields:
                return []
            section = section.model_fields[part].annotation
        for inner in getattr(section, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                section = inner
            for nested in getattr(inner, "__args__", ()):
                if isinstance(nested, type) and issubclass(nested, BaseModel):
                    section = nested
    return sorted(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
