"""What a user gets to read for a wrong `params.yaml`: the key's path, what it got, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kinglet.errors import KingletError
from tasks.parameters import load_parameters

ROOT = Path(__file__).resolve().parents[3]


def written(tmp_path: Path, changes: dict[str, Any]) -> Path:
    """Write the default parameters with `changes` ({dotted key: value}) and return the file."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[int(section) if isinstance(place, list) else section]
        place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_default_parameters_are_valid() -> None:
    load_parameters(ROOT / "params.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.name)
def test_the_other_parameter_files_are_valid(path: Path) -> None:
    load_parameters(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune.epoch": 3}, ["finetune.epoch is not a known key", "known here:", "epochs"]),
        ({"finetune.epochs": 0}, ["finetune.epochs is 0", "auto, or a number above 0"]),
        ({"finetune.epochs": "many"}, ["finetune.epochs is 'many'", "auto, or a number above 0"]),
        ({"finetune.input_size": 8}, ["finetune.input_size is 8", "auto, or a whole number of pixels from 16 to 1024"]),
        ({"finetune.input_size": 64.5}, ["finetune.input_size is 64.5", "auto, or a whole number"]),
        ({"finetun": {}}, ["finetun is not a known key", "finetune"]),
        ({"finetune.batch_size": 0}, ["finetune.batch_size is 0", "greater than or equal to 1"]),
        ({"finetune.batch_size": "many"}, ["finetune.batch_size is 'many'", "valid integer"]),
        ({"data.fit": "squash"}, ["data.fit is 'squash'", "'stretch', 'crop', 'pad' or 'tile'"]),
        (
            {"split.validation": 0.6, "split.test": 0.5},
            ["split", "validation, test and sealed together must stay below 1"],
        ),
        ({"prune.importance": "l1"}, ["prune.importance is 'l1'", "'l2', 'taylor' or 'hessian'"]),
        ({"search.families": ["transformer"]}, ["search.families", "auto, or a list of residual, backbone"]),
        ({"search.survivors": 12}, ["search.survivors is 12", "less than or equal to 9"]),
        ({"crossvalidate.folds": [1, 3]}, ["crossvalidate.folds is [1, 3]", "1, 2, 3, ... in this order"]),
        ({"crossvalidate.folds": [1]}, ["crossvalidate.folds is [1]", "[] for no cross-validation"]),
        ({"crossvalidate.repeats": []}, ["crossvalidate.repeats is []"]),
        ({"adapt.methods": ["coral"]}, ["adapt.methods", "batch_norm, self_training, finetune"]),
        ({"adapt.methods": []}, ["adapt.methods"]),
        ({"adapt.source_share": 1}, ["adapt.source_share is 1", "less than 1"]),
        ({"adapt.held_out": 0}, ["adapt.held_out is 0", "greater than 0"]),
        ({"adapt.target": ""}, ["adapt.target is ''"]),
        ({"adapt.models": ["nobody"]}, ["adapt.models names nobody", "allowed: teacher, residual-16"]),
        ({"domains.most": -1}, ["domains.most is -1", "greater than or equal to 0"]),
        ({"distill.students": {"Big One": {}}}, ["distill.students"]),
        ({"clips.frames": 1}, ["clips.frames is 1", "greater than or equal to 2"]),
        ({"clips.frames_per_second": 0}, ["clips.frames_per_second is 0", "auto, or a number above 0"]),
        ({"clips.per_video": 1.5}, ["clips.per_video is 1.5", "auto, or a whole number above 0"]),
        ({"seed": -1}, ["seed is -1", "greater than or equal to 0"]),
        ({"seed": None}, ["seed is None"]),
        ({"finetune": None}, ["finetune is None"]),
        ({"finetune.batch_size": 0, "seed": -1}, ["finetune.batch_size is 0", "seed is -1"]),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(KingletError) as caught:
        load_parameters(written(tmp_path, changes))
    assert str(tmp_path / "params.yaml") in caught.value.message
    assert all(words in caught.value.message for words in said), caught.value.message
    assert caught.value.message.count("\n") == 0


def test_a_runtime_that_is_missing_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.parameter_conflicts.find_spec", lambda module: None)
    with pytest.raises(KingletError) as caught:
        load_parameters(written(tmp_path, {"export.runtimes": ["openvino"]}))
    assert "export.runtimes names openvino, and OpenVINO is not installed" in caught.value.message
    assert "pip install 'kinglet[openvino]'" in caught.value.hint


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("data: {source: a, images: b}\n")
    with pytest.raises(KingletError, match="finetune is missing"):
        load_parameters(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "is not valid YAML"),
        ("", "holds no settings"),
        ("- 1\n", "holds no settings"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KingletError, match=said):
        load_parameters(path)
