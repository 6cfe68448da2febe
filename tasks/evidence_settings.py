"""The settings of what is measured, compared, chosen, judged, followed, watched and shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.setting_values import AssociationName, Images, Score, Share
from tasks.settings_section import AUTO, Count, Positive, Section


class Evaluate(Section):
    top_k: Count = 3
    calibration_bins: Count = 15
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    interval: Literal["percentile", "bca"] = "percentile"
    stratified: bool = True


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
    """The budget; null sets no limit. max_doubt: how far the interval of the difference may reach below it."""

    latency_ms: Positive | None = None
    size_mb: Positive | None = None
    max_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] = 0.01
    max_doubt: Annotated[float, Field(ge=0, lt=1)] | None = None


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
