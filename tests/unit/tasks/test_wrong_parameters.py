"""What a user does wrong in params.yaml, told before anything is computed; names come from kinglet's own tables."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from kinglet.errors import KingletError
from tasks import compression_settings, setting_values
from tasks.parameters import Parameters, load_parameters
from tests.unit.tasks.step_process import ROOT, SETTINGS, Workplace, assert_refused, write_pets

STAGE = {"width": 8, "stride": 2}


def message_of(tmp_path: Path, edit: Callable[[dict[str, Any]], Any]) -> str:
    """Return what is said about the settings after an edit."""
    settings = copy.deepcopy(SETTINGS)
    for section in ("prune", "quantize", "benchmark", "select"):
        settings[section] = {}
    edit(settings)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    with pytest.raises(KingletError) as caught:
        load_parameters(path)
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        # Unknown names, at every depth.
        (
            lambda s: s.update(optimizer={}),
            ["optimizer is not a known key; known here: adapt, benchmark, check, ", "data, distill"],
        ),
        (lambda s: s["data"].update(sources="x"), ["data.sources is not a known key; known here: color, fit"]),
        (
            lambda s: s["distill"]["students"]["tiny"].update(size=3),
            ["distill.students.tiny.size is not a known key; known here: backbone, input_size, stages"],
        ),
        (
            lambda s: s["distill"]["students"]["tiny"]["stages"][0].update(depth=3),
            ["distill.students.tiny.stages.0.depth is not a known key; known here: blocks, stride, width"],
        ),
        # Values out of range, at every depth.
        (
            lambda s: s["distill"]["students"]["tiny"].update(stages=[STAGE, {"width": 8, "stride": 9}]),
            ["distill.students.tiny.stages.1.stride is 9; allowed: less than or equal to 4"],
        ),
        (
            lambda s: s["distill"]["students"]["tiny"].update(stages=[STAGE, {"stride": 2}]),
            ["distill.students.tiny.stages.1.width is missing"],
        ),
        (
            lambda s: s["distill"]["students"]["tiny"].update(stages=[STAGE, "wide"]),
            ["distill.students.tiny.stages.1 is 'wide'"],
        ),
        (lambda s: s["distill"]["students"]["tiny"].update(stages=[]), ["distill.students.tiny.stages is []"]),
        (lambda s: s["distill"]["students"].update({"Big One": {}}), ["distill.students.Big One is 'Big One'"]),
        (lambda s: s["distill"].update(students=["tiny"]), ["distill.students is ['tiny']; allowed: a valid dict"]),
        (lambda s: s["benchmark"].update(batch_sizes=[1, 0]), ["benchmark.batch_sizes.1 is 0"]),
        (lambda s: s["finetune"].update(epochs=float("inf")), ["finetune.epochs is inf", "a number above 0"]),
        (lambda s: s["finetune"].update(learning_rate=float("inf")), ["finetune.learning_rate is inf"]),
        (lambda s: s["finetune"].update(learning_rate=float("nan")), ["finetune.learning_rate is nan"]),
        (lambda s: s["finetune"].update(batch_size=True), ["finetune.batch_size is True", "not yes or no"]),
        (lambda s: s["select"].update(latency_ms=0), ["select.latency_ms is 0; allowed: greater than 0"]),
        (lambda s: s.update(seed=2**40), ["seed is 1099511627776; allowed: less than 4294967296"]),
        (lambda s: s["data"].update(source=""), ["data.source is ''"]),
        (lambda s: s["data"].update(source=None), ["data.source is None; allowed: a valid string"]),
        (lambda s: s.update(finetune=[]), ["finetune is []"]),
        (lambda s: s["prune"].update(baseline=True), ["prune.baseline is True"]),
        (lambda s: s["prune"].update(blocks=-1), ["prune.blocks is -1"]),
        (lambda s: s["prune"].update(round_to="wide"), ["prune.round_to is 'wide'; allowed: auto, or a whole number"]),
        (lambda s: s["prune"].update(channel_share=0), ["prune is", "blocks or channel_share above 0"]),
        (lambda s: s["distill"].update(hints="maps"), ["distill.hints is 'maps'; allowed: none, features, attention"]),
        (lambda s: s["distill"].update(hint_weight=0), ["distill.hint_weight is 0; allowed: greater than 0"]),
        (lambda s: s["data"].update(unlabelled=""), ["data.unlabelled is ''"]),
        (
            lambda s: (s["finetune"].update(backbone="timm:resnet18"), s["distill"].update(hints="attention")),
            ["distill.hints is attention, but timm:resnet18 of another model zoo shows no feature maps"],
        ),
        # Names that a step would only look up after hours of training.
        (
            lambda s: s["finetune"].update(augment=["flip", "flop"]),
            ["finetune.augment is ['flip', 'flop']; allowed: auto, or a list of flip, flip_vertically, crop"],
        ),
        (lambda s: s["distill"].update(augment=["flop"]), ["distill.augment.0 is 'flop'; allowed: flip"]),
        (
            lambda s: s["quantize"].update(methods=["minmax", "median"]),
            ["quantize.methods.1 is 'median'; allowed: minmax, percentile, mse, entropy"],
        ),
        (lambda s: s["quantize"].update(methods=[]), ["quantize.methods is []"]),
        (lambda s: s["quantize"].update(weight_bits=[4]), ["quantize.weight_bits.0 is 4; allowed: 7 or 8"]),
        (
            lambda s: s["finetune"].update(backbone="resnet50"),
            ["finetune.backbone is 'resnet50'; allowed: efficientnet-lite0", "timm:NAME, torchvision:NAME"],
        ),
        (lambda s: s["finetune"].update(backbone="timm:"), ["finetune.backbone is 'timm:'"]),
        (lambda s: s["prune"].update(models=["huge"]), ["prune.models names huge; allowed: teacher, tiny"]),
        (
            lambda s: s.update(prune={"models": ["tiny"]}, quantize={"models": ["tiny-prune"]}),
            ["quantize.models names tiny-prune; allowed: teacher, tiny, tiny-pruned"],
        ),
        (
            lambda s: s.update(export={"runtimes": ["tensorrt"]}),
            ["export.runtimes.0 is 'tensorrt'; allowed: openvino, opencv, litert"],
        ),
        (
            lambda s: s.update(export={"models": ["huge"]}),
            ["export.models names huge; allowed: teacher, tiny, teacher-int8, tiny-int8"],
        ),
        # Two models of one name would overwrite each other's scores.
        (
            lambda s: s["distill"].update(students={"teacher": {"stages": [STAGE]}}),
            ["two models would be called teacher"],
        ),
        (
            lambda s: s["distill"]["students"].update({"teacher-int8": {"stages": [STAGE]}}),
            ["two models would be called teacher-int8"],
        ),
        (lambda s: s["prune"].update(models=["tiny", "tiny"]), ["two models would be called tiny-pruned"]),
        (
            lambda s: s.update(export={"runtimes": ["opencv", "opencv"], "models": ["tiny"]}),
            ["two models would be called tiny-opencv"],
        ),
    ],
)
def test_wrong_value_is_named_with_its_path_what_it_got_and_what_is_allowed(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], words: list[str]
) -> None:
    message = message_of(tmp_path, edit)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"data:\n\tsource: x\n", ["params.yaml, line 2 is not valid YAML", r"'\t' that cannot start any token"]),
        (b"data: {source: x\nseed: 0\n", ["params.yaml, line", "is not valid YAML"]),
        (b"seed: 1\x00\n", ["params.yaml is not valid YAML"]),
        (b"\xff\xfe\x00", ["params.yaml is no UTF-8 text file"]),
        (b"", ["params.yaml holds no settings"]),
        (b"# nothing but words\n", ["params.yaml holds no settings"]),
        (b"just words\n", ["params.yaml holds no settings"]),
        (None, ["params.yaml does not exist"]),
    ],
)
def test_step_with_a_file_that_holds_no_settings_says_so_and_mended_it_runs(
    tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KingletError) as caught:
        load_parameters(path)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "\n" not in caught.value.message


def test_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KingletError, match="is no UTF-8 text file"):
        load_parameters(tmp_path)


def test_tabs_are_answered_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("data:\n\tsource: x\n")
    with pytest.raises(KingletError) as caught:
        load_parameters(tmp_path / "params.yaml")
    assert caught.value.hint == "Indent with spaces, not with tabs."


def test_real_step_refuses_before_it_works_and_runs_once_the_name_is_mended(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    write_pets(tmp_path / "photos", 6)
    place.set("quantize", methods=["median"])
    assert_refused(place.step("ingest"), "params.yaml: quantize.methods.0 is 'median'; allowed: minmax, percentile")
    assert not (tmp_path / "artifacts").exists()
    (tmp_path / "params.yaml").write_bytes(b"data:\n\tsource: x\n")
    assert_refused(place.step("ingest"), "params.yaml, line 2 is not valid YAML")
    place.set("quantize", methods=["minmax"])
    place.steps("ingest")


def test_allowed_names_are_the_keys_of_the_tables() -> None:
    from kinglet.compression.calibration import METHODS
    from kinglet.compression.candidates import FAMILIES
    from kinglet.compression.pruning import IMPORTANCES
    from kinglet.data.augmentation import AUGMENTATIONS
    from kinglet.data.views import MIXUP
    from kinglet.models.registry import BACKBONES, ZOOS
    from kinglet.training.hints import HINTS
    from kinglet.training.losses import DISTANCES
    from tasks.rivals import RIVALS

    assert sorted(setting_values.AUGMENTATIONS) == sorted([*AUGMENTATIONS, MIXUP])
    assert sorted(setting_values.CALIBRATION_METHODS) == sorted(METHODS)
    assert sorted(setting_values.FAMILIES) == sorted(FAMILIES)
    assert sorted(setting_values.DISTANCES) == sorted(DISTANCES)
    assert sorted(setting_values.HINTS) == sorted(HINTS)
    assert sorted(setting_values.BACKBONES) == sorted(BACKBONES)
    assert sorted(setting_values.ZOOS) == sorted(ZOOS)
    baseline = compression_settings.Prune.model_fields["baseline"].annotation
    assert sorted(get_args(baseline)) == sorted(RIVALS)
    importance = compression_settings.Prune.model_fields["importance"].annotation
    assert sorted(get_args(importance)) == sorted(IMPORTANCES)


@pytest.mark.parametrize("name", [*setting_values.BACKBONES, "timm:resnet18", "torchvision:resnet18"])
def test_every_backbone_of_the_table_is_accepted(name: str) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["finetune"]["backbone"] = name
    assert Parameters.model_validate(settings).finetune.backbone == name


def test_reading_the_parameters_imports_no_torch() -> None:
    code = "import sys, tasks.parameters; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
