"""What detection does not offer is said with the parameters, before anything is computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinglet.errors import KingletError
from tasks.detection_settings import OFF
from tasks.parameters import Parameters, load_parameters

SETTINGS: dict[str, Any] = {
    "problem": "detection",
    "data": {"source": "cells", "images": "cells", "fit": "pad"},
    "finetune": {"backbone": "efficientnet-lite0", "input_size": 320},
    "crossvalidate": {"folds": []},
    "domains": {"most": 0},
    "quantize": {"qat_epochs": 0},
}


def loaded(tmp_path: Path, **changes: dict[str, Any]) -> Parameters:
    settings = copy.deepcopy(SETTINGS)
    for section, values in changes.items():
        settings.setdefault(section, {}).update(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_parameters(path)


def test_settings_with_all_of_it_off_are_accepted(tmp_path: Path) -> None:
    assert loaded(tmp_path).problem == "detection"
    assert loaded(tmp_path, data={"fit": "stretch"}, finetune={"input_size": "auto"}).data.fit == "stretch"


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("search", {"survivors": 1}),
        ("distill", {"students": {"small": {"stages": [{"width": 8, "stride": 2}]}}}),
        ("prune", {"models": ["teacher"]}),
        ("adapt", {"models": ["teacher"]}),
        ("crossvalidate", {"folds": [1, 2]}),
        ("domains", {"most": 8}),
        ("quantize", {"qat_epochs": 1}),
        ("export", {"runtimes": ["opencv"]}),
    ],
)
def test_a_step_that_knows_classes_only_is_refused_when_it_is_on(
    tmp_path: Path, section: str, values: dict[str, Any]
) -> None:
    key = f"{section}.{next(iter(values))}"
    assert key in OFF
    with pytest.raises(KingletError, match=rf"problem is detection, which does not offer {key} yet\.") as caught:
        loaded(tmp_path, **{section: values})
    assert caught.value.hint == f"Set {key}: {OFF[key]}. params/detection.yaml has all of them off."


def test_all_that_is_on_is_named_at_once_and_classification_keeps_it(tmp_path: Path) -> None:
    on = {"search": {"survivors": 2}, "domains": {"most": 1}}
    with pytest.raises(KingletError, match=r"does not offer search\.survivors, domains\.most yet"):
        loaded(tmp_path, **on)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("problem: detection", "problem: classification"))
    assert load_parameters(path).search.survivors == 2


@pytest.mark.parametrize(
    ("section", "values", "said", "hint"),
    [
        ("data", {"fit": "crop"}, r"data\.fit: crop would cut boxes away", "pad or stretch"),
        ("finetune", {"input_size": 300}, r"finetune\.input_size is 300; a detector's is a multiple of 32", "to 288"),
        ("finetune", {"input_size": 16}, r"finetune\.input_size is 16", "to 32"),
    ],
)
def test_what_boxes_do_not_allow_is_refused(
    tmp_path: Path, section: str, values: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(KingletError, match=said) as caught:
        loaded(tmp_path, **{section: values})
    assert hint in caught.value.hint
