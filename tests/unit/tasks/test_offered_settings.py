"""What a problem does not offer is said with the parameters, before anything is computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinglet.errors import KingletError
from tasks.offered_settings import EXAMPLES, OFF
from tasks.parameters import Parameters, load_parameters
from tasks.setting_values import ADAPTATION_METHODS

SETTINGS: dict[str, Any] = {
    "problem": "detection",
    "data": {"source": "cells", "images": "cells", "fit": "pad"},
    "finetune": {"backbone": "efficientnet-lite0", "input_size": 320},
    "crossvalidate": {"folds": []},
    "domains": {"most": 0},
    "quantize": {"qat_epochs": 0},
}
# What only classification offers, switched on; detectors and segmenters are pruned too, by channels.
ON: dict[str, dict[str, Any]] = {
    "search": {"survivors": 1},
    "distill": {"hints": "attention"},
    "quantize": {"qat_epochs": 1},
    "export": {"runtimes": ["opencv"]},
}


def loaded(tmp_path: Path, problem: str = "detection", **changes: dict[str, Any]) -> Parameters:
    settings = {**copy.deepcopy(SETTINGS), "problem": problem}
    for section, values in changes.items():
        settings.setdefault(section, {}).update(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_parameters(path)


@pytest.mark.parametrize("problem", list(OFF))
def test_settings_with_all_of_it_off_are_accepted(tmp_path: Path, problem: str) -> None:
    assert loaded(tmp_path, problem).problem == problem
    assert loaded(tmp_path, problem, data={"fit": "stretch"}, finetune={"input_size": "auto"}).data.fit == "stretch"


@pytest.mark.parametrize("problem", list(OFF))
def test_the_example_of_a_problem_can_be_loaded(problem: str) -> None:
    assert load_parameters(Path(__file__).parents[3] / EXAMPLES[problem]).problem == problem


def test_masks_are_cross_validated(tmp_path: Path) -> None:
    assert loaded(tmp_path, "segmentation", crossvalidate={"folds": [1, 2]}).crossvalidate.folds == [1, 2]


@pytest.mark.parametrize("problem", ["detection", "segmentation", "tracking", "video"])
def test_domains_of_all_problems_are_left_out(tmp_path: Path, problem: str) -> None:
    assert loaded(tmp_path, problem, domains={"most": 8}).domains.most == 8


@pytest.mark.parametrize("problem", ["detection", "segmentation"])
def test_detectors_and_segmenters_are_pruned(tmp_path: Path, problem: str) -> None:
    assert loaded(tmp_path, problem, prune={"models": ["teacher"], "baseline": "none"}).prune.models == ["teacher"]


@pytest.mark.parametrize("problem", ["detection", "segmentation", "tracking"])
def test_students_of_detectors_and_segmenters_are_named_by_a_backbone_and_pass_through_the_steps_behind(
    tmp_path: Path, problem: str
) -> None:
    students = {"small": {"backbone": "mobilenet-v2", "input_size": 256}, "other": {"backbone": "efficientnet-lite0"}}
    read = loaded(
        tmp_path,
        problem,
        distill={"students": students, "controls": ["small"]},
        prune={"models": ["small"], "baseline": "none"},
        quantize={"models": ["small-pruned", "small-untaught", "other"]},
    )
    assert read.distill.students["small"].backbone == "mobilenet-v2"
    assert read.distill.students["other"].input_size == "auto"


STAGES = {"stages": [{"width": 8, "stride": 2}]}


@pytest.mark.parametrize(
    ("problem", "student", "said", "hint"),
    [
        (
            "detection",
            STAGES,
            r"small has stages; problem is detection, and a student is a detector on",
            "Put backbone",
        ),
        (
            "detection",
            {**STAGES, "backbone": "mobilenet-v2"},
            r"small has stages; problem is detection",
            "Put backbone",
        ),
        (
            "segmentation",
            STAGES,
            r"small has stages; problem is segmentation, and a student is a segmenter on",
            "Put backbone",
        ),
        ("tracking", {}, r"small lacks backbone; problem is tracking", "one of efficientnet-lite0, "),
        (
            "classification",
            {**STAGES, "backbone": "mobilenet-v2"},
            r"small has both stages and backbone; problem is class",
            "Leave one of them out.",
        ),
        (
            "classification",
            {"input_size": 32},
            r"small lacks stages or backbone; problem is class",
            "blocks, or backbone, one of efficientnet-lite0, ",
        ),
        ("detection", {"backbone": "timm:resnet18"}, r"small\.backbone is 'timm:resnet18'; allowed: efficientnet-", ""),
        ("detection", {"backbone": "mobilenet-v2", "input_size": 8}, r"small\.input_size is 8; allowed: auto", ""),
    ],
)
def test_a_student_of_another_problem_is_refused_in_one_sentence(
    tmp_path: Path, problem: str, student: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(KingletError, match=rf"params\.yaml: distill\.students\.{said}") as caught:
        loaded(tmp_path, problem, distill={"students": {"small": student}})
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("problem", ["detection", "segmentation", "tracking"])
def test_boxes_and_masks_are_adapted_to_a_domain_by_statistics_and_by_labels(tmp_path: Path, problem: str) -> None:
    wanted = {"models": ["teacher"], "target": "yard", "methods": ["batch_norm", "finetune"]}
    assert loaded(tmp_path, problem, adapt=wanted).adapt.domain == "yard"
    for changes, said in (
        (
            {"target": "demonstration"},
            r"adapt\.target is demonstration: the made camera",
        ),
        ({"augment": ["rotate"]}, rf"adapt\.augment names rotate, which {problem} does not have"),
    ):
        with pytest.raises(KingletError, match=said):
            loaded(tmp_path, problem, adapt={**wanted, **changes})


def test_pixels_are_answers_to_learn_from_and_objects_are_not(tmp_path: Path) -> None:
    wanted = {"models": ["teacher"], "target": "yard", "methods": ["batch_norm", "self_training"]}
    assert loaded(tmp_path, "segmentation", adapt=wanted).adapt.methods == wanted["methods"]
    for problem in ("detection", "tracking"):
        with pytest.raises(KingletError, match=r"adapt\.methods names self_training, which knows no boxes"):
            loaded(tmp_path, problem, adapt=wanted)


def test_clips_are_adapted_by_every_method_and_to_the_made_camera_too(tmp_path: Path) -> None:
    wanted = {"models": ["teacher"], "target": "demonstration", "methods": list(ADAPTATION_METHODS)}
    assert loaded(tmp_path, "video", adapt=wanted).adapt.augment == "auto"
    assert loaded(tmp_path, "video", adapt={**wanted, "target": "yard"}).adapt.domain == "yard"
    with pytest.raises(KingletError, match=r"adapt\.augment names erase, which video does not have"):
        loaded(tmp_path, "video", adapt={**wanted, "augment": ["erase"]})


@pytest.mark.parametrize(
    ("problem", "section", "values"),
    [
        *[(problem, section, values) for problem in OFF for section, values in ON.items()],
        *[(problem, "prune", {"blocks": 1}) for problem in ("detection", "segmentation")],
    ],
)
def test_a_step_that_knows_classes_only_is_refused_when_it_is_on(
    tmp_path: Path, section: str, values: dict[str, Any], problem: str
) -> None:
    key = f"{section}.{next(iter(values))}"
    with pytest.raises(KingletError, match=rf"problem is {problem}, which does not offer {key} yet\.") as caught:
        loaded(tmp_path, problem, **{section: values})
    assert caught.value.hint == f"Set {key}: {OFF[problem][key]}. {EXAMPLES[problem]} has all of them off."


def test_all_that_is_on_is_named_at_once_and_classification_keeps_it(tmp_path: Path) -> None:
    on = {"search": {"survivors": 2}, "quantize": {"qat_epochs": 1}}
    with pytest.raises(KingletError, match=r"does not offer search\.survivors, quantize\.qat_epochs yet"):
        loaded(tmp_path, **on)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("problem: detection", "problem: classification"))
    assert load_parameters(path).search.survivors == 2


@pytest.mark.parametrize(
    ("problem", "section", "values", "said", "hint"),
    [
        ("detection", "data", {"fit": "crop"}, r"data\.fit: crop would cut boxes away", "pad or stretch"),
        ("segmentation", "data", {"fit": "crop"}, r"data\.fit: crop would cut parts of masks away", "pad or stretch"),
        ("detection", "finetune", {"input_size": 300}, "is 300; a detector's is a multiple of 32", "to 288"),
        ("segmentation", "finetune", {"input_size": 300}, "is 300; a segmenter's is a multiple of 32", "to 288"),
        ("detection", "finetune", {"input_size": 16}, r"finetune\.input_size is 16", "to 32"),
        (
            "tracking",
            "distill",
            {"students": {"small": {"backbone": "mobilenet-v2", "input_size": 300}}},
            r"distill\.students\.small\.input_size is 300; a detector's is a multiple of 32",
            "to 288",
        ),
    ],
)
def test_what_boxes_and_masks_do_not_allow_is_refused(
    tmp_path: Path, problem: str, section: str, values: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(KingletError, match=said) as caught:
        loaded(tmp_path, problem, **{section: values})
    assert hint in caught.value.hint
