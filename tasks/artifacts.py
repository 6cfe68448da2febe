"""Where each step keeps its files, and how a model lies on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinglet.atomic import read_json, write_json, write_text
from kinglet.errors import KingletError
from kinglet.runtime.engines import ONNXRUNTIME, RUNTIMES

if TYPE_CHECKING:
    from kinglet.runtime.preprocessing import Preprocessing

# The name of the fine-tuned model.
TEACHER = "teacher"

ARTIFACTS = Path("artifacts")
INGEST = ARTIFACTS / "ingest"
PROFILE = ARTIFACTS / "profile"
# Of a data set for detection: the boxes with the size of their image, and what is measured of them.
BOX_FACTS = PROFILE / "boxes.parquet"
CHECK_DATA = ARTIFACTS / "check_data"
SPLIT = ARTIFACTS / "split"
# Images without a label that students learn from, one row each: index, path.
UNLABELLED = SPLIT / "unlabelled.parquet"
PLAN = ARTIFACTS / "plan"
FINETUNE = ARTIFACTS / "finetune"
# Which fold every image is in, and beside it the folder of each fold.
CROSSVALIDATE = ARTIFACTS / "crossvalidate"
FOLDS = CROSSVALIDATE / "folds.parquet"
FOLD_PLAN = CROSSVALIDATE / "plan.json"
POOL_FOLDS = ARTIFACTS / "pool_folds"
OUT_OF_FOLD = POOL_FOLDS / "out_of_fold.parquet"
LABEL_ERRORS = ARTIFACTS / "label_errors"
SUSPICIOUS_LABELS = LABEL_ERRORS / "suspicious.csv"
LABEL_ERROR_COUNTS = LABEL_ERRORS / "counts.json"
# Of the teacher, to the training images in their order: what all trainings after its own learn from.
ANSWERS = ARTIFACTS / "answer" / "logits.npy"
# What the teacher sees on the way to them, if its students are to learn from that too.
MAPS = ANSWERS.parent / "maps"
SEARCH = ARTIFACTS / "search"
DISTILL = ARTIFACTS / "distill"
PRUNE = ARTIFACTS / "prune"
REFUSED_CUTS = PRUNE / "refused.json"
UNRIVALLED = PRUNE / "unrivalled.json"
ADAPT = ARTIFACTS / "adapt"
# The adapted models, apart from those that later steps score and choose from.
ADAPTED_MODELS = ADAPT / "models"
DOMAINS = ARTIFACTS / "domains"
QUANTIZE = ARTIFACTS / "quantize"
EXPORT = ARTIFACTS / "export"
EVALUATE = ARTIFACTS / "evaluate"
COMPARE = ARTIFACTS / "compare"
ROBUSTNESS = ARTIFACTS / "robustness"
BENCHMARK = ARTIFACTS / "benchmark"
SELECT = ARTIFACTS / "select"
BUNDLE = ARTIFACTS / "bundle"
GATE = ARTIFACTS / "gate"
VERDICT = GATE / "verdict.json"
TRACK = ARTIFACTS / "track"
REPORT = ARTIFACTS / "report"
# Of what servers saw: written by a check, by no stage.
MONITOR = ARTIFACTS / "monitor"

# Steps that leave models, in the order a model passes through them.
MODEL_STEPS = (FINETUNE, DISTILL, PRUNE, QUANTIZE, EXPORT)

# What a run keeps beside DVC's outputs: checkpoints to resume from, locks.
WORKSPACE = Path(".kinglet")


SOURCE_FACTS = INGEST / "source.json"
# The boxes of a data set for detection, one row each: index of the image, label, x1, y1, x2, y2 in its pixels as shown.
BOXES = INGEST / "boxes.parquet"
# Of a data set for tracking: which frame of which sequence an image is.
FRAMES = INGEST / "frames.parquet"
# Of a data set for segmentation: each mask in its image's own pixels, called INDEX.png, and the classes in the order of
# their index there.
MASKS = INGEST / "masks"
MASK_CLASSES = INGEST / "classes.json"
# Where images are cut into tiles: the image of each, and the part of its own pixels that it answers for.
TILES = INGEST / "tiles.parquet"
CORE = ("left", "top", "right", "bottom")
# Of a data set of videos: from which frames of which video a clip was taken, and at which seconds.
CLIPS = INGEST / "clips.parquet"
# In a folder of videos that `kinglet clips generate` made: what says so.
GENERATED = "generated.json"
# Before the names of the columns that a person's table has beyond those that are known: none can be mistaken for a
# measured one.
GIVEN = "given:"


@dataclass(frozen=True)
class InputSizes:
    """Edge lengths in pixels of the models' square inputs, with every "auto" resolved.

    low_resolution: of the first part of the teacher's training. student: of a small network that takes the
    images as they are. students: by the name of each student in the settings. candidates: what a search may take.
    rivals: of whole networks that pruned ones have to beat.
    """

    teacher: int
    low_resolution: int
    student: int
    students: dict[str, int]
    candidates: list[int]
    rivals: list[int] = field(default_factory=list)

    @property
    def all(self) -> list[int]:
        """Every size that images are packed at, ascending."""
        return sorted({self.teacher, self.low_resolution, *self.students.values(), *self.candidates, *self.rivals})


def read_input_sizes() -> InputSizes:
    """Return the sizes that the step `ingest` chose and packed the images at."""
    return InputSizes(**read_json(SOURCE_FACTS)["input_sizes"])


def base_size() -> int:
    """Return the packed size that images are corrupted at: the smallest with all their pixels, or else the largest.

    A camera corrupts the picture that it takes, not what a model makes of it.
    """
    sizes, short_side = read_input_sizes().all, read_json(SOURCE_FACTS)["short_side"]
    return next((size for size in sizes if size >= short_side), sizes[-1])


def searched_students(n_survivors: int) -> list[str]:
    """Return the names of the students that a search with this many survivors leaves, the best first."""
    return [f"student-{rank}" for rank in range(1, n_survivors + 1)]


def untaught(student: str) -> str:
    """Return the name of the control beside a student: the same network, trained as long from the labels alone."""
    return f"{student}-untaught"


def as_fast_as_pruned(model: str) -> str:
    """Return the name of the control beside a pruned model: a dense network that takes as long."""
    return f"{model}-dense"


def fold_folder(repeat: int, fold: int) -> Path:
    """Return where the fold of a repetition keeps its answers."""
    return CROSSVALIDATE / f"{repeat}-{fold}"


def packed_images(input_size: int) -> Path:
    """Return the file of packed images of this edge length in pixels."""
    return INGEST / f"images_{input_size}.npy"


def packed_masks(input_size: int) -> Path:
    """Return the file of packed masks of this edge length in pixels, rows as those of `packed_images`."""
    return INGEST / f"masks_{input_size}.npy"


def say_why_empty(folder: Path, reason: str) -> None:
    """Write why a step left nothing in one of its folders, as DVC warns of every folder that is empty."""
    write_text(folder / "README.txt", f"{reason}\n")


def packed_clips(input_size: int) -> Path:
    """Return the file of packed clips of this edge length in pixels, rows as those of `packed_images`.

    uint8 (n, frames of a clip, size, size, channels); `packed_images` has the middle frame of each.
    """
    return INGEST / f"clips_{input_size}.npy"


def mask_file(index: int) -> Path:
    """Return the file with an image's mask in the image's own pixels, an 8-bit gray PNG."""
    return MASKS / f"{index}.png"


@dataclass(frozen=True)
class ModelCard:
    """The facts about one model, kept as `model.json` beside its `model.onnx` (and `model.pt`), or what it became.

    name: unique among all models of a run. step: the step that made it. parent: the model it was
    made from or taught by, empty for the teacher. precision: "fp32", "int8", or "TYPE weights"
    for float models that store them so. architecture:
    {"family": ..., "spec": {...}}, enough to rebuild the network before its weights are loaded.
    mean, std: one value per channel, of pixels in [0, 1]. control_for: the model that this one is there to be
    compared with, empty for one that is there for its own sake. runtime: what computes it, a key of
    `kinglet.runtime.engines.RUNTIMES`, which says how its files are called. takes_pixels: whether its input is uint8
    and it normalizes by itself.
    """

    name: str
    step: str
    parent: str
    precision: str
    problem: str
    architecture: dict[str, Any]
    input_size: int
    channels: int
    fit: str
    mean: list[float]
    std: list[float]
    classes: list[str]
    parameters: int
    notes: dict[str, Any]
    control_for: str = ""
    runtime: str = ONNXRUNTIME
    takes_pixels: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the model's input."""
        return self.channels, self.input_size, self.input_size

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the model's input."""
        # Here, as a command that only names models needs neither numpy nor a decoder.
        from kinglet.runtime.preprocessing import Preprocessing

        return Preprocessing(
            self.input_size, self.channels, self.fit, tuple(self.mean), tuple(self.std), self.takes_pixels
        )

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of the model's files; the first is the one that its runtime opens."""
        # Here, as it loads numpy, for which the kinglet command does not wait.
        from kinglet.runtime.bundles import NEEDED_BY

        return (*RUNTIMES[self.runtime].files, *NEEDED_BY.get(self.problem, ()))


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `card` to `folder`/model.json."""
    write_json(folder / "model.json", asdict(card))


def read_card(folder: Path) -> ModelCard:
    """Return the card in `folder`/model.json."""
    return ModelCard(**read_json(folder / "model.json"))


def refuse_unknown_models(key: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise KingletError if a setting, called `key` in params.yaml, names a model that no step has made."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KingletError(f"params.yaml: {key} names {', '.join(unknown)}; known: {', '.join(known)}.")


def model_folders(*steps: Path) -> list[Path]:
    """Return the folders of all models that these steps (default: all) left, in order of step and name."""
    return [path.parent for step in steps or MODEL_STEPS for path in sorted(step.glob("*/model.json"))]
