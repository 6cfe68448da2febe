"""`params.yaml` as typed values: parsed once per process, unknown keys and wrong values refused by path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES
from tasks.artifacts import TEACHER, as_fast_as_pruned, searched_students, untaught
from tasks.clip_settings import Clips, Recurrent
from tasks.offered_settings import refuse_what_is_not_offered
from tasks.settings_section import AUTO, AutoOrCount, AutoOrPositive, Count, Positive, Section, auto_or_positive

PARAMS_FILE = Path("params.yaml")

# The keys of the tables in kinglet/, written down again: importing those would cost every step the seconds
# that torch takes. A test holds them equal.
AUGMENTATIONS = ("flip", "flip_vertically", "crop", "rotate", "shift", "color", "erase", "mixup")
BOX_AUGMENTATIONS = ("flip", "flip_vertically", "crop", "mosaic", "color")
MASK_AUGMENTATIONS = ("flip", "flip_vertically", "turn", "crop", "scale", "elastic", "color")
# All frames of a clip in the same way.
CLIP_AUGMENTATIONS = ("flip", "flip_vertically", "crop", "shift", "color")
AUGMENTATIONS_OF = {
    "classification": AUGMENTATIONS,
    "detection": BOX_AUGMENTATIONS,
    "segmentation": MASK_AUGMENTATIONS,
    "video": CLIP_AUGMENTATIONS,
}
BACKBONES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "mobilenet-v2")
ZOOS = ("timm", "torchvision")
# How quantization-aware training comes to the sizes of its steps.
LEARNED = "learned"
CALIBRATION_METHODS = ("minmax", "percentile", "mse", "entropy")
DISTANCES = ("kl", "dkd", "dist")
HINTS = ("features", "attention")
NO_HINTS = "none"
FAMILIES = ("residual", "backbone")
ADAPTATION_METHODS = ("batch_norm", "self_training", "finetune")
ASSOCIATIONS = ("bytetrack", "sort")
# What stands for a target domain where the images name none.
DEMONSTRATION = "demonstration"
# Light to import, unlike those.
EXPORT_RUNTIMES = tuple(name for name in RUNTIMES if name != ONNXRUNTIME)


def one_of(*names: str) -> Callable[[str], str]:
    """Return a validator that lets these names pass."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(", ".join(names))
        return value

    return check


def known_backbone(value: str) -> str:
    """Return the name of a backbone of our own or of a model zoo; raises ValueError for any other."""
    zoo, _, name = value.partition(":")
    if value not in BACKBONES and not (zoo in ZOOS and name):
        raise ValueError(", ".join([*BACKBONES, *(f"{zoo}:NAME" for zoo in ZOOS)]))
    return value


Augmentation = Annotated[str, AfterValidator(one_of(*AUGMENTATIONS))]
CalibrationMethod = Annotated[str, AfterValidator(one_of(*CALIBRATION_METHODS))]
DistillationLoss = Annotated[str, AfterValidator(one_of(*DISTANCES))]
Hints = Annotated[str, AfterValidator(one_of(NO_HINTS, *HINTS))]
ExportRuntime = Annotated[str, AfterValidator(one_of(*EXPORT_RUNTIMES))]
AssociationName = Annotated[str, AfterValidator(one_of(*ASSOCIATIONS))]
AdaptationMethod = Annotated[str, AfterValidator(one_of(*ADAPTATION_METHODS))]

Score = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
ALL: Literal["all"] = "all"


def auto_or_pixels(value: Any) -> Any:
    """Return a value that is "auto" or an edge length in pixels; raises ValueError for any other."""
    if value == AUTO or (type(value) is int and 16 <= value <= 1024):
        return value
    raise ValueError("auto, or a whole number of pixels from 16 to 1024")


def auto_all_or_count(value: Any) -> Any:
    """Return a value that is "auto", "all" or a whole number above 0; raises ValueError for any other."""
    if value in (AUTO, ALL) or (type(value) is int and value > 0):
        return value
    raise ValueError("auto, all, or a whole number above 0")


def auto_or_augmentations(value: Any) -> Any:
    """Return a value that is "auto" or a list of augmentations' names; raises ValueError for any other."""
    known = tuple(dict.fromkeys(name for names in AUGMENTATIONS_OF.values() for name in names))
    if value == AUTO or (isinstance(value, list) and all(name in known for name in value)):
        return value
    raise ValueError(f"auto, or a list of {', '.join(known)}")


def auto_or_families(value: Any) -> Any:
    """Return a value that is "auto" or a list of families of candidates; raises ValueError for any other."""
    if value == AUTO or (isinstance(value, list) and value and all(name in FAMILIES for name in value)):
        return value
    raise ValueError(f"auto, or a list of {', '.join(FAMILIES)}")


def auto_or_not_negative(value: Any) -> Any:
    """Return a value that is "auto", 0 or a positive number; raises ValueError for any other."""
    return value if type(value) in (int, float) and value == 0 else auto_or_positive(value)


# "auto" is resolved by the steps: sizes from the images' own, epochs from their number.
InputSize = Annotated[int | Literal["auto"], BeforeValidator(auto_or_pixels)]
Epochs = AutoOrPositive
Images = Annotated[int | Literal["auto", "all"], BeforeValidator(auto_all_or_count)]
Channels = AutoOrCount
Views = AutoOrCount
Augmentations = Annotated[list[str] | Literal["auto"], BeforeValidator(auto_or_augmentations)]
Families = Annotated[list[str] | Literal["auto"], BeforeValidator(auto_or_families)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Data(Section):
    source: Annotated[str, Field(min_length=1)]
    images: Annotated[str, Field(min_length=1)]
    label_corrections: str = ""
    ignore_classes: list[str] = []
    fit: Literal["stretch", "crop", "pad", "tile"] = "stretch"
    color: Literal["auto", "gray", "rgb"] = "auto"
    max_pixels: Count = 100_000_000
    # None where nothing is said; the file must name a folder, which DVC watches.
    unlabelled: Annotated[str, Field(min_length=1)] = ""


class Check(Section):
    """Thresholds of the data checks; shares are of all images.

    Of detection alone: max_dropped_annotations, a share of the annotations. max_without_boxes: a share of the images.
    tiny_box_pixels: the square root of a box's area at the network's input. huge_box_share: of its image's area.
    same_object_iou: from which intersection over union on two boxes cover the same.
    Of segmentation alone: max_void, a share of an image's pixels that have no class. max_one_class: a share of the
    images, those that show one class only. max_dropped_annotations counts masks there.
    """

    min_images_per_class: Annotated[int, Field(ge=3)] = 10
    max_class_imbalance: Annotated[float, Field(ge=1)] = 10.0
    max_unreadable: Share = 0.05
    max_conflicting: Share = 0.05
    near_duplicate_distance: Annotated[int, Field(ge=0, le=8)] = 2
    outlier_deviations: Positive = 5.0
    drift_threshold: Positive = 0.2
    quarantine_conflicting_labels: bool = True
    max_dropped_annotations: Share = 0.05
    max_without_boxes: Share = 0.5
    tiny_box_pixels: Annotated[float, Field(ge=0)] = 8
    huge_box_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    same_object_iou: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_void: Share = 0.5
    max_one_class: Share = 0.5


class Split(Section):
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    sealed: Share = 0.0
    use_given: bool = True

    @model_validator(mode="after")
    def leaves_training_images(self) -> Split:
        if self.validation + self.test + self.sealed >= 1:
            raise ValueError("validation, test and sealed together must stay below 1")
        return self


class Finetune(Section):
    """epochs: 0 leaves the backbone as it is, and trains what stands behind it alone; of video only."""

    backbone: Annotated[str, AfterValidator(known_backbone)]
    input_size: InputSize = AUTO
    epochs: Annotated[float | Literal["auto"], BeforeValidator(auto_or_not_negative)] = AUTO
    low_resolution_share: Share = 0.45
    head_epochs: Annotated[float, Field(ge=0)] = 0.1
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.85
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.06
    label_smoothing: Share = 0.05
    dropout: Share = 0.2
    augment: Augmentations = AUTO
    ema_decay: Share = 0.99
    patience: Count = 10
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    devices: list[str] = []

    @field_validator("devices")
    @classmethod
    def devices_of_one_kind(cls, value: list[str]) -> list[str]:
        if len({name.partition(":")[0] for name in value}) > 1:
            raise ValueError("devices of one kind, such as [cuda:0, cuda:1], or [] for the best one")
        if any(name.startswith("cuda") for name in value) and len(set(value)) < len(value):
            raise ValueError("every GPU once")
        return value

    @model_validator(mode="after")
    def every_device_has_images(self) -> Finetune:
        if self.batch_size < 2 * len(self.devices):
            raise ValueError(f"batch_size is {self.batch_size}: too few images for {len(self.devices)} devices")
        return self


def counted_from_one(value: list[int]) -> list[int]:
    """Return a list that is 1, 2, 3, ...; raises ValueError for any other."""
    if value != list(range(1, len(value) + 1)):
        raise ValueError("a list of the numbers 1, 2, 3, ... in this order")
    return value


Numbers = Annotated[list[int], AfterValidator(counted_from_one)]


class Crossvalidate(Section):
    """Folds and repetitions are lists of their numbers, as `dvc.yaml` makes a stage of each.

    folds: [] leaves the cross-validation out. repeats: each puts the images into other folds.
    """

    folds: Numbers = [1, 2, 3]
    repeats: Annotated[Numbers, Field(min_length=1)] = [1]
    epochs: Epochs = AUTO

    @field_validator("folds")
    @classmethod
    def one_fold_holds_nothing_out(cls, value: list[int]) -> list[int]:
        if len(value) == 1:
            raise ValueError("[1, 2] or more folds, or [] for no cross-validation")
        return value


class Stage(Section):
    width: Count
    stride: Annotated[int, Field(ge=1, le=4)]
    blocks: Annotated[int, Field(ge=0)] = 1


class Student(Section):
    input_size: InputSize = AUTO
    stages: Annotated[list[Stage], Field(min_length=1)]


class Search(Section):
    """Candidates are tried in rungs; every rung trains twice as long and keeps about half of them.

    survivors: how many are then trained in full by `distill`, as student-1, student-2, ...; 0 leaves the search
    out. effort: how long the candidates are trained. points_per_halving: what a halving of the latency is worth,
    in accuracy, where there is no limit to it.
    """

    survivors: Annotated[int, Field(ge=0, le=9)] = 0
    families: Families = AUTO
    trials: Count = 6
    rungs: Annotated[int, Field(ge=1, le=6)] = 3
    effort: Positive = 1
    points_per_halving: Share = 0.003


class FromTeacher(Section):
    """How students that start with the teacher's weights are trained."""

    epochs: Epochs = AUTO
    batch_size: Count = 64
    learning_rate: Positive = 2e-3


class Distill(Section):
    students: dict[Name, Student] = {}
    controls: list[str] = []
    from_teacher: FromTeacher = FromTeacher()
    epochs: Epochs = AUTO
    batch_size: Count = 256
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.05
    loss: DistillationLoss = "dist"
    temperature: Positive = 1.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    hints: Hints = NO_HINTS
    hint_weight: Positive = 1.0
    augment: list[Augmentation] = ["flip", "shift"]
    views: Views = AUTO
    ema_decay: Share = 0.99
    patience: Count = 1000


class Prune(Section):
    models: list[str] = []
    blocks: Annotated[int, Field(ge=0)] = 0
    channel_share: Share = 0.5
    importance: Literal["l2", "taylor", "hessian"] = "taylor"
    scope: Literal["layer", "global"] = "layer"
    steps: Count = 1
    round_to: Channels = AUTO
    baseline: Literal["resolution", "width", "none"] = "resolution"
    epochs: Epochs = AUTO
    batch_size: Count = 256
    learning_rate: Positive = 1e-3

    @model_validator(mode="after")
    def removes_something(self) -> Prune:
        if not self.blocks and not self.channel_share:
            raise ValueError("blocks or channel_share above 0")
        return self


class Adapt(Section):
    """Adapts these models to a target domain by each of the methods; [] adapts none.

    target: a value of the images' domain, which is then in no training and no test but those of `adapt`, or
    "demonstration": the held-out images as a made camera would take them. held_out: of a domain's images, those that
    judge. source_share: of the source's batch statistics, in the mixture with the target's. confidence: from which
    answers count as sure. labelled_images: that fine-tuning learns from.
    """

    models: list[str] = []
    target: Annotated[str, Field(min_length=1)] = DEMONSTRATION
    methods: Annotated[list[AdaptationMethod], Field(min_length=1)] = list(ADAPTATION_METHODS)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5
    source_share: Share = 0.1
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    labelled_images: Count = 200
    epochs: Epochs = AUTO
    batch_size: Count = 64
    learning_rate: Positive = 3e-3
    augment: list[Augmentation] = ["flip"]

    @property
    def domain(self) -> str | None:
        """The domain that is set apart from all others; None where there is none."""
        return self.target if self.models and self.target != DEMONSTRATION else None


class Domains(Section):
    """Leaves one domain out after the other: trains the teacher's recipe without it and answers its test images.

    most: how many domains at most, those with most test images; 0 leaves none out. epochs: "auto" takes few, as for
    the folds of `crossvalidate`. min_test_images: that a domain must have.
    """

    most: Annotated[int, Field(ge=0)] = 8
    epochs: Epochs = AUTO
    min_test_images: Count = 20


class Quantize(Section):
    models: list[str] = []
    calibration_images: Count = 512
    methods: Annotated[list[CalibrationMethod], Field(min_length=1)] = ["minmax", "percentile", "entropy"]
    weight_bits: Annotated[list[Literal[7, 8]], Field(min_length=1)] = [8, 7]
    tolerance: Share = 0.005
    uint8_input: bool = True
    max_float_layers: Annotated[int, Field(ge=0)] = 4
    qat_epochs: Annotated[float, Field(ge=0)] = 1
    qat_learning_rate: Positive = 2e-4
    qat_steps: Literal["learned", "averaged"] = "averaged"
    stored_weights: list[Literal["fp16", "bf16", "int8"]] = []


class Export(Section):
    """Converts these models, all where none is named, for each of these runtimes."""

    runtimes: list[ExportRuntime] = []
    models: list[str] = []


class Evaluate(Section):
    top_k: Count = 3
    calibration_bins: Count = 15
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    interval: Literal["percentile", "bca"] = "percentile"
    stratified: bool = True


class Plan(Section):
    """What the planner expects before there are models: of how many images only one of two is right."""

    disagreement: Annotated[float, Field(gt=0, le=1)] = 0.05
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8


class Compare(Section):
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    min_slice_images: Count = 20


class Robustness(Section):
    """Scores these models, all but the controls where none is named, on corrupted test images.

    images: how many of them, as many of each class; "auto" leaves about the same work for every size of image.
    tolerance: what a model may lose against the teacher before it is said to lose.
    """

    models: list[str] = []
    images: Images = AUTO
    tolerance: Share = 0.01


class Benchmark(Section):
    threads: Count = 1
    batch_sizes: Annotated[list[Count], Field(min_length=1)] = [1, 32]
    seconds_per_model: Positive = 2


class Select(Section):
    latency_ms: Positive | None = None
    size_mb: Positive | None = None
    max_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] = 0.01


class Gate(Section):
    """What a model must prove before it may replace the champion; null sets no limit unless said otherwise.

    champion: the folder with the bundle in production; one without a bundle means that there is none yet. The
    reference is the champion, or the teacher where there is none. max_accuracy_drop, latency_ms, size_mb: null takes
    that of `select`. not_established: what the gate does where the test images are too few to tell.
    min_class_accuracy: share of right answers in every class. max_class_drop: that a class may lose to the reference.
    max_robustness_drop, max_champion_robustness_drop: on corrupted images, to the teacher and to the champion.
    max_slowdown: times the reference's latency.
    """

    champion: Annotated[str, Field(min_length=1)] = "champion"
    max_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] | None = None
    not_established: Literal["refuse", "accept"] = "refuse"
    min_class_accuracy: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    max_class_drop: Share | None = 0.05
    max_robustness_drop: Share | None = 0.15
    max_champion_robustness_drop: Share | None = 0.05
    latency_ms: Positive | None = None
    size_mb: Positive | None = None
    memory_mb: Positive | None = None
    max_slowdown: Positive | None = 1.1
    max_data_warnings: Annotated[int, Field(ge=0)] | None = None


class Monitor(Section):
    """When what servers saw counts as drifted.

    sketches: the folder, or s3://BUCKET/PREFIX, that servers write to. false_alarm_rate: chance that a check without
    drift raises any alarm, at most. min_images, min_labels: fewer say nothing. min_stability_index: a smaller move is
    no alarm. images_per_scene: how many images in a row show the same. window_hours: what a check looks at, back from
    the last sketch; null: all since the last check.
    """

    sketches: Annotated[str, Field(min_length=1)] = ".kinglet/sketches"
    false_alarm_rate: Annotated[float, Field(ge=0.0001, le=0.2)] = 0.01
    min_images: Annotated[int, Field(ge=100)] = 500
    min_stability_index: Annotated[float, Field(ge=0)] = 0.1
    images_per_scene: Count = 1
    window_hours: Positive | None = None
    min_labels: Annotated[int, Field(ge=20)] = 100


class Track(Section):
    association: AssociationName = "bytetrack"
    sure_score: Score = 0.5
    lowest_score: Score = 0.1
    min_frames: Count | None = None
    max_lost: Annotated[int, Field(ge=0)] | None = None
    min_iou: Score | None = None


class Report(Section):
    title: str = "Kinglet"
    sample_errors: Annotated[int, Field(ge=0, le=200)] = 24


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


def refuse_augmentations_of_another_problem(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if the teacher's training names an augmentation that its problem does not have."""
    known = AUGMENTATIONS_OF[parameters.network]
    named = [] if parameters.finetune.augment == AUTO else parameters.finetune.augment
    unknown = [name for name in named if name not in known]
    if unknown:
        raise KingletError(
            f"{path}: finetune.augment names {', '.join(unknown)}, which {parameters.problem} does not have.",
            f"Take some of {', '.join(known)}, or auto.",
        )


def refuse_no_epochs_of_another_problem(parameters: Parameters, path: Path) -> None:
    """Raise KingletError if the teacher is not to be trained at all, where nothing stands behind its backbone."""
    if parameters.finetune.epochs == 0 and parameters.network != "video":
        raise KingletError(
            f"{path}: finetune.epochs is 0; allowed: auto, or a number above 0.",
            "Only problem: video trains what stands behind the backbone alone.",
        )


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
