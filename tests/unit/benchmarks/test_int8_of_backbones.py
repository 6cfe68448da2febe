"""int8 of the backbones: the settings of a clone, paired differences, and the row of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.int8_of_backbones import INT8, compared, settings_for
from benchmarks.tables.runs import backbone_rows
from tasks.artifacts import TEACHER
from tasks.parameters import load_parameters

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_but_the_backbone_is_trained(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings_for(content, "mobilenet-v2", 0.5)))
    read = load_parameters(tmp_path / "params.yaml")
    assert (read.finetune.backbone, read.finetune.epochs) == ("mobilenet-v2", 0.5)
    assert (read.distill.students, read.prune.models, read.search.survivors) == ({}, [], 0)
    assert settings_for(content, "mobilenet-v2", None)["finetune"]["epochs"] == content["finetune"]["epochs"]


def test_differences_are_paired_and_shown_with_their_sign() -> None:
    labels = np.zeros(1000, np.int64)
    wrong = {TEACHER: 50, INT8: 52, "nncf": 60}
    predicted = {name: (np.arange(1000) < count).astype(np.int64) for name, count in wrong.items()}
    found = compared(predicted, labels)
    assert found["accuracy"]["value"] == pytest.approx(0.95)
    values = {name: found[name]["value"] for name in ("kinglet_to_fp32", "nncf_to_fp32", "kinglet_to_nncf")}
    assert values == pytest.approx({"kinglet_to_fp32": -0.002, "nncf_to_fp32": -0.01, "kinglet_to_nncf": 0.008})
    assert found["kinglet_to_nncf"]["low"] > 0
    loss = {"value": -0.01, "low": -0.02, "high": 0.0}
    whole = {"backbone": "lite", "input_size": 48, **found, "without_vnni_same_file_to_fp32": loss}
    figures = {
        "versions_of_nncf": {"nncf": "3.4.0"},
        "backbones": [whole, {**whole, "without_vnni_variant_to_fp32": loss}],
    }
    rows = backbone_rows(figures)
    assert rows[0][0] == "int8 of lite, 48 px, 95.00 % in fp32"
    assert "**+0.80 (" in rows[0][2]
    assert rows[0][2].endswith("without VNNI **-1.00 (-2.00 to +0.00)** to fp32")
    assert rows[1][2].endswith("(the same file: -1.00 (-2.00 to +0.00))")
