"""How measurements become figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks import training_speed
from benchmarks.default_run import run_figures, set_parameters
from benchmarks.nothing_to_do import is_up_to_date
from benchmarks.process_memory import PeakMemory, memory_measure, tree_bytes
from benchmarks.results import ROOT, shown_command, spread
from benchmarks.training_set import TrainingSet, images_per_second, pack_folder
from benchmarks.training_speed import with_packing
from kinglet.errors import KingletError


def test_a_spread_is_median_range_and_the_values_in_order() -> None:
    assert spread([3.0, 1.0, 2.0004]) == {"median": 2.0, "low": 1.0, "high": 3.0, "values": [3.0, 1.0, 2.0]}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ".venv/bin/python -m benchmarks.x"),
        (["--params", "params/full.yaml"], ".venv/bin/python -m benchmarks.x --params params/full.yaml"),
        (["--folder", "/home/somebody/photos"], ".venv/bin/python -m benchmarks.x --folder photos"),
        (["--folder", "../photos/"], ".venv/bin/python -m benchmarks.x --folder photos"),
    ],
)
def test_a_command_shows_no_path_outside_the_checkout(arguments: list[str], shown: str) -> None:
    assert shown_command("x", arguments) == shown


def test_warming_up_is_not_counted() -> None:
    # The first step takes 10 s, the three others half a second each.
    assert images_per_second([10.0, 10.5, 11.0, 11.5], batch_size=8, warmup_steps=1) == pytest.approx(16)


@pytest.mark.parametrize(("ends", "warmup"), [([1.0, 2.0], 2), ([1.0, 2.0], 0)])
def test_steps_that_leave_nothing_to_count_are_refused(ends: list[float], warmup: int) -> None:
    with pytest.raises(ValueError, match="warming up"):
        images_per_second(ends, 8, warmup)


def test_packing_is_charged_to_one_epoch() -> None:
    # 1,000 images at 100 images/s are 10 s, with 10 s of packing 20.
    assert with_packing(100, 1000, 10) == pytest.approx(50)


IMAGES = TrainingSet(["a.png"] * 1000, [0] * 1000, 1, "packed.npy", 48, 1, 0.0)
OPTIONS = argparse.Namespace(steps=4, warmup_steps=1, workers=[1, 2], pairs=2)


def test_blocks_take_turns_and_the_opponent_has_its_better_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = []

    def run_block(loop: str, images: Path, steps: int, workers: int | None = None) -> dict[str, Any]:
        blocks.append((loop, workers))
        seconds = {None: 1.0, 1: 4.0, 2: 2.0}[workers]
        return {"step_ends": [seconds * number for number in range(steps)], "threads": 2}

    monkeypatch.setattr(training_speed, "run_block", run_block)
    figures = training_speed.compare(IMAGES, tmp_path, OPTIONS)
    pair = [("kinglet_loop", None), ("obvious_loop", 2)]
    assert blocks == [("obvious_loop", 1), ("obvious_loop", 2), *pair, *pair]
    assert (figures["obvious_workers"], figures["threads"], figures["ratio"]["values"]) == (2, 2, [2.0, 2.0])


def test_loops_on_different_numbers_of_threads_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_block(loop: str, images: Path, steps: int, workers: int | None = None) -> dict[str, Any]:
        return {"step_ends": list(range(steps)), "threads": 1 if loop == "kinglet_loop" else 2}

    monkeypatch.setattr(training_speed, "run_block", run_block)
    with pytest.raises(RuntimeError, match="threads"):
        training_speed.compare(IMAGES, tmp_path, OPTIONS)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_packed_rows_are_the_files_in_order(tmp_path: Path) -> None:
    for label, value in (("b", 7), ("a", 200), ("a", 90)):
        save(tmp_path / "set" / label / f"{value}.png", np.full((5, 5), value, np.uint8))
    images = pack_folder(tmp_path / "set", 8, tmp_path / "packed.npy")
    packed = np.load(images.packed)
    assert packed.shape == (3, 8, 8, 1)
    assert [int(Path(path).stem) for path in images.paths] == packed[:, 0, 0, 0].tolist()
    assert (images.labels, images.n_classes, images.channels) == ([0, 0, 1], 2, 1)


def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a" / "good.png", np.zeros((5, 5, 3), np.uint8))
    (tmp_path / "set" / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(KingletError, match=r"a/bad\.png"):
        pack_folder(tmp_path / "set", 8, tmp_path / "packed.npy")


def test_memory_of_children_counts(tmp_path: Path) -> None:
    held = 64 << 20
    code = f"held = b'x' * {held}; print('ready', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with PeakMemory(os.getpid(), interval_seconds=0.01) as memory:
            pass
        alone = tree_bytes(psutil.Process(child.pid), memory_measure())
        child.communicate("\n")
    assert alone > held
    assert memory.peak_bytes > alone
    assert memory.samples >= 1


@pytest.mark.parametrize(
    ("name", "printed", "expected"),
    [
        ("dvc_repro", "Stage 'a' didn't change, skipping\nData and pipelines are up to date.\n", True),
        ("dvc_repro", "Running stage 'a':\n", False),
        ("kinglet_run", json.dumps({"stages": {"a": "unchanged", "b": "unchanged"}}), True),
        ("kinglet_run", json.dumps({"stages": {"a": "unchanged", "b": "restored from cache"}}), False),
    ],
)
def test_only_a_run_without_work_counts_as_nothing_to_do(name: str, printed: str, expected: bool) -> None:
    assert is_up_to_date(name, printed) is expected


def finished_run(**outcomes: str) -> dict[str, Any]:
    row = {"name": "teacher", "p50_ms": 0.5, "p99_ms": 0.6, "size_bytes": 10, "times_faster": 1.0, "chosen": True}
    summary = {
        "stages": outcomes,
        "models": [row],
        "chosen": "teacher",
        "orchestration_seconds": 2.0,
        "orchestration_share": 0.1,
    }
    return {"wall_seconds": 20.0, "peak_memory_mb": 100, "memory_measure": "pss", "summary": summary}


SCORES = {
    "teacher": "teacher",
    "models": {
        "teacher": {
            "step": "finetune",
            "parent": "",
            "control_for": "",
            "precision": "fp32",
            "input_size": 48,
            "parameters": 5,
            "test": {"n": 40, "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}},
        }
    },
}


def test_figures_of_a_run_join_its_summary_and_its_scores() -> None:
    figures = run_figures(finished_run(ingest="ran", finetune="ran"), SCORES)
    assert (figures["stages"], figures["test_images"], figures["teacher"]) == (2, 40, "teacher")
    assert figures["models"][0]["test_accuracy"]["low"] == 0.8
    assert figures["models"][0]["size_bytes"] == 10
    assert "summary" not in figures


def test_a_run_that_remembered_something_is_refused() -> None:
    with pytest.raises(KingletError, match="1 of 2 stages ran"):
        run_figures(finished_run(ingest="restored from cache", finetune="ran"), SCORES)


def test_settings_and_source_reach_the_clone(tmp_path: Path) -> None:
    settings = (ROOT / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_text("data: {source: a, images: b}\n")
    (tmp_path / "photos").mkdir()
    data = set_parameters(tmp_path, ROOT / "params.yaml", None)
    assert (tmp_path / "params.yaml").read_bytes() == settings
    assert data["source"] == "data/fashion-mnist/dataset.yaml"
    data = set_parameters(tmp_path, None, tmp_path / "photos")
    assert data["source"] == str(tmp_path / "photos")
    assert str(tmp_path / "photos") in (tmp_path / "params.yaml").read_text()
