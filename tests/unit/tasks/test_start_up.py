"""What steps and commands load before they begin: nothing that takes seconds and only other steps need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Steps that train load torch, check_data loads Great Expectations, and each of them anyway what comes with it.
LIGHT = (
    "assign_folds",
    "benchmark",
    "bundle",
    "compare",
    "evaluate",
    "export",
    "gate",
    "ingest",
    "label_errors",
    "plan",
    "pool_folds",
    "profile",
    "report",
    "robustness",
    "select",
    "split",
)
HEAVY = {"dvc", "great_expectations", "matplotlib", "prefect", "scipy.signal", "scipy.stats", "sklearn", "torch"}


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ([f"tasks.{step}" for step in LIGHT], HEAVY),
        (["flows.cli"], HEAVY | {"numpy", "onnxruntime", "pandas", "pyarrow", "ssl"}),
    ],
    ids=["steps that do not train", "the kinglet command"],
)
def test_what_others_need_is_not_loaded(modules: list[str], unwanted: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}\nprint(*sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
