"""README's tables: exactly what the result files give, and how figures become words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import adaptation, table
from benchmarks.results import RESULTS, write_result
from benchmarks.tables import peers
from benchmarks.tables.words import accuracy_in_words, duration, how_made
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError

EMPTY = (
    "# Title\n\n<!-- benchmarks:begin -->\n<!-- benchmarks:end -->\n\ntext\n<!-- models:begin --><!-- models:end -->\n"
    "<!-- peers:begin --><!-- peers:end -->\n"
)


def spread(*values: float) -> dict[str, Any]:
    return {"median": sorted(values)[len(values) // 2], "low": min(values), "high": max(values), "values": values}


def model(name: str, step: str, parent: str, accuracy: float, ms: float, size: int, faster: float) -> dict[str, Any]:
    return {
        "name": name,
        "step": step,
        "parent": parent,
        "precision": "int8" if step == "quantize" else "fp32",
        "input_size": 28,
        "parameters": 1,
        "test_accuracy": {"value": accuracy, "low": accuracy - 0.005, "high": accuracy + 0.005},
        "p50_ms": ms,
        "p99_ms": ms,
        "size_bytes": size,
        "times_faster": faster,
    }


RUN = {
    "wall_seconds": 725.2,
    "peak_memory_mb": 2345,
    "memory_measure": "pss",
    "orchestration_seconds": 31.0,
    "orchestration_share": 0.0427,
    "teacher": "teacher",
    "chosen": "int8",
    "models": [
        model("teacher", "finetune", "", 0.9385, 0.5, 13_600_000, 1.0),
        model("int8", "quantize", "small", 0.931, 0.08333, 480_000, 6.0),
    ],
}
TRAINING = {
    "fashion-mnist": {
        "images": 6000,
        "input_size": 48,
        "ratio": spread(2.0, 2.5, 2.25),
        "kinglet_images_per_second": spread(300.0, 310.4, 305.0),
        "obvious_images_per_second": spread(120.0, 150.0, 130.0),
    }
}
FIGURES = {
    "default_run": RUN,
    "nothing_to_do": {"dvc_repro_seconds": spread(1.0, 1.2, 1.1), "kinglet_run_seconds": spread(2.0)},
    "training_speed": TRAINING,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for name, figures in FIGURES.items():
        write_json(
            folder / f"{name}.json",
            {
                "benchmark": name,
                "command": f".venv/bin/python -m benchmarks.{name}",
                "date": "2025-01-02",
                "figures": figures,
                "machine": {"cpu": "Some | CPU", "cores": 2, "memory_gb": 24.9},
                "repetitions": 3,
            },
        )
    return folder


@pytest.mark.parametrize("name", ["benchmarks", "models", "peers"])
def test_readme_holds_what_the_result_files_give(name: str) -> None:
    needed = [table.README, *(RESULTS / f"{needed}.json" for needed in table.NEEDED)]
    if missing := [path.name for path in needed if not path.is_file()]:
        pytest.skip(f"not there yet: {', '.join(missing)}")
    text = table.README.read_text(encoding="utf-8")
    tables = {"benchmarks": table.benchmarks_table, "models": table.models_table, "peers": peers.peers_section}
    assert table.with_block(text, name, tables[name](RESULTS)) == text, "run `.venv/bin/python -m benchmarks.table`"


def test_every_goal_is_a_row_with_machine_date_and_command(results: Path) -> None:
    lines = table.benchmarks_table(results).splitlines()
    assert lines[:2] == ["| what | goal | measured | machine | date | command |", f"|{' --- |' * 6}"]
    assert len(lines) == 2 + 4 + 2 + 1
    origin = "Some \\| CPU, 2 cores, 25 GB | 2025-01-02 | `.venv/bin/python -m benchmarks."
    assert all(origin in line for line in lines[2:])
    shown = "\n".join(lines)
    assert "| **12 min 05 s**, 2.3 GB (PSS, all processes) |" in shown
    assert "| **4.3 %** (31.0 s) |" in shown
    assert (
        "| **0.75 points below**, **6.0 times as fast**, 0.48 MB instead of 13.60 MB, 93.10 % (92.60 to 93.60) |"
        in shown
    )
    assert "| Nothing to do: `dvc repro` | at most 3 s | **1.10 s** (1.00 to 1.20, 3 runs) |" in shown
    assert "(2.00 to 2.00, 1 run)" in shown
    assert "| **2.25 times** (2.00 to 2.50, 3 pairs): 305 beside 130 images/s |" in shown


def test_runs_that_not_everybody_makes_are_rows_when_they_are_there(results: Path) -> None:
    before = table.benchmarks_table(results)
    (results / "full_run.json").write_bytes((results / "default_run.json").read_bytes())
    after = table.benchmarks_table(results)
    assert after.startswith(before)
    assert after.count("`params/full.yaml`: ") == 4


def test_the_speed_of_the_bootstrap_is_a_row_with_what_it_resampled(results: Path) -> None:
    figures = {
        "images": 10_000,
        "resamples": 10_000,
        "models": 4,
        "accuracy_and_f1_seconds": spread(0.1, 0.12, 0.11),
        "every_score_seconds": spread(1.9),
        "scipy_accuracy_seconds": spread(0.5),
    }
    write_result(results, "bootstrap_speed", command="c", repetitions=3, figures=figures)
    shown = table.benchmarks_table(results)
    assert (
        "| Intervals of accuracy and macro F1: 10,000 resamples of 10,000 predictions, one core | at most 2 s | "
        "**0.11 s** (0.10 to 0.12, 3 runs); of the accuracy alone, image by image in SciPy: 0.5 s |" in shown
    )
    assert "| Intervals of every score of 4 models" in shown


def test_augmentation_with_boxes_is_a_row_beside_torchvision(results: Path) -> None:
    figures = {
        "size": 320,
        "torchvision_version": "0.29.1",
        "kinglet_pictures_per_second": spread(400.0),
        "kinglet_with_mosaics_pictures_per_second": spread(300.0),
        "torchvision_pictures_per_second": spread(200.0),
        "times_torchvision": spread(1.9, 2.0, 2.1),
    }
    write_result(results, "box_augmentation", command="c", repetitions=3, figures=figures)
    shown = table.benchmarks_table(results)
    assert "| Boxes augmented beside torchvision 0.29.1, 320 px, one core | at least as fast | " in shown
    assert (
        "| **2.0 times** (1.9 to 2.1): 400 beside 200 pictures/s; with mosaics, which torchvision does not make, 300 |"
        in shown
    )


def test_robustness_is_a_row_when_it_was_measured(results: Path) -> None:
    figures = {"corruptions": 75, "images": 10_000, "image_size": 28, "models": ["a", "b"], "wall_seconds": 301.2}
    figures |= {"peak_memory_mb": 412, "corruption_us_per_image": 3400}
    write_result(results, "robustness_speed", command="c", repetitions=1, figures=figures)
    assert (
        "| Robustness: 75 corruptions of 10,000 images of 28 px, 2 models | at most 6 min and 4 GB | **5 min 01 s**, "
        "0.4 GB; the corruptions alone 45 µs each, on one processor |" in table.benchmarks_table(results)
    )


def adapted(recovered: dict[str, float] | None) -> dict[str, Any]:
    accuracy = {"target_accuracy": {"value": 0.85}, "source_accuracy": {"value": 0.93}}
    method = {**accuracy, "recovered": recovered, "source_change": {"value": -0.021}}
    images = {"adaptation": 4000, "labelled": 200}
    before = {"target_accuracy": {"value": 0.8}, "source_accuracy": {"value": 0.93}, "images": images}
    return {"models": {"small": {**before, "methods": {"batch_norm": method, "finetune": method}}}}


def test_adaptation_has_a_row_for_every_method(results: Path) -> None:
    figures = adaptation.figures_of(adapted({"value": 0.61, "low": 0.55, "high": 0.68}), 12.0)
    write_result(results, "adaptation", command="c", repetitions=1, figures=figures)
    shown = table.benchmarks_table(results)
    assert (
        "| Another camera, made (93.0 to 80.0 %): small, batch statistics of 4,000 images without labels | at least "
        "half of what the change cost | **61 % won back** (55 to 68): 85.0 %; the images it came from -2.1 points |"
        in shown
    )
    assert "small, fine-tuning on 200 labelled images" in shown


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"models": {}}, "adapted no model."),
        ({"models": {}, "reason": "3 images are too few."}, "adapted no model: 3 images are too few."),
        (adapted(None), "small by batch_norm, small by finetune"),
    ],
)
def test_a_run_that_shows_no_adaptation_makes_no_figure(scores: dict[str, Any], said: str) -> None:
    with pytest.raises(KingletError, match=re.escape(said)):
        adaptation.figures_of(scores, None)


def test_models_are_listed_with_the_chosen_one_marked(results: Path) -> None:
    assert table.models_table(results).splitlines() == [
        "| model | how made | test accuracy | p50 ms | MB | times faster |",
        "| --- | --- | --- | ---: | ---: | ---: |",
        "| teacher | fine-tuned from ImageNet, 28 px, fp32 | 93.85 % (93.35 to 94.35) | 0.500 | 13.60 | 1.0 |",
        "| **int8** (chosen) | quantized from small, 28 px, int8 | 93.10 % (92.60 to 93.60) | 0.083 | 0.48 | 6.0 |",
    ]


def test_an_accuracy_without_interval_stands_alone() -> None:
    assert accuracy_in_words({"value": 0.9}) == "90.00 %"


@pytest.mark.parametrize(("seconds", "said"), [(8.24, "8.2 s"), (59.97, "1 min 00 s"), (725, "12 min 05 s")])
def test_seconds_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_only_what_lies_between_the_markers_changes() -> None:
    text = "a\n<!-- x:begin -->\nold\nold\n<!-- x:end -->\nz\n"
    once = table.with_block(text, "x", "new")
    assert once == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nz\n"
    assert table.with_block(once, "x", "new") == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- x:begin -->",  # no end
        "<!-- x:end --><!-- x:begin -->",  # the wrong way round
        "<!-- x:begin --><!-- x:begin --><!-- x:end -->",  # twice
    ],
)
def test_markers_that_are_missing_or_out_of_order_are_refused(text: str) -> None:
    with pytest.raises(KingletError, match="once each"):
        table.with_block(text, "x", "new")


def run_table(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["table", *map(str, options)])
    return table.main()


def test_check_fails_until_the_tables_are_written_and_writes_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(EMPTY)
    places = ("--readme", readme, "--results", results)
    assert run_table(monkeypatch, "--check", *places) == 2
    assert "not what the result files give" in capsys.readouterr().err
    assert readme.read_text() == EMPTY
    assert run_table(monkeypatch, *places) == 0
    assert run_table(monkeypatch, "--check", *places) == 0
    assert readme.read_text().startswith("# Title\n\n<!-- benchmarks:begin -->\n| what |")


def test_a_missing_result_file_is_named(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (results / "nothing_to_do.json").unlink()
    with pytest.raises(KingletError, match=r"nothing_to_do\.json does not exist"):
        table.benchmarks_table(results)


def test_a_result_file_says_machine_versions_date_and_command(tmp_path: Path) -> None:
    path = write_result(tmp_path, "some", command="do it", repetitions=5, figures={"x": 1.0})
    content = read_json(path)
    assert {"cpu", "cores", "memory_gb"} <= set(content["machine"])
    assert {"python", "torch", "onnxruntime", "dvc", "prefect"} <= set(content["versions"])
    assert content["repetitions"] == 5
    assert content["command"] == "do it"
    assert len(content["date"]) == len("2025-01-02")


@pytest.mark.parametrize(
    ("control_for", "words"),
    [("", "pruned from big, 28 px, fp32"), ("small-pruned", "control beside small-pruned, 28 px, fp32")],
)
def test_a_control_is_said_to_be_one(control_for: str, words: str) -> None:
    made = model("small", "prune", "big", 0.9, 1.0, 1, 1.0)
    assert how_made(made | {"control_for": control_for}) == words


def peer_row(tool, low, p50_ms, images_per_second=100.0, size_bytes=1000, **more):
    return {
        "tool": tool,
        "name": tool,
        "versions": {tool: "1.0"},
        "difference_to_teacher": {"low": low, "value": low, "high": low},
        "latency": {"p50_ms": p50_ms},
        "throughput": {"images_per_second": images_per_second},
        "size_bytes": size_bytes,
        **more,
    }


def test_the_chosen_model_is_held_against_the_fastest_peer_that_loses_no_more():
    chosen = peer_row("Kinglet", -0.006, 0.2, 500.0, 100, chosen=True)
    teacher = peer_row("Kinglet", 0.0, 0.1, chosen=False)
    rows = [
        teacher,
        chosen,
        peer_row("slow", -0.001, 2.0),
        peer_row("fast", -0.006, 0.9),
        peer_row("worse", -0.02, 0.5),
    ]
    found = peers.beside_the_fastest_peer([*rows, {"tool": "broken", "failed": "killed"}])
    assert "(0.60 points), fast 1.0 is the fastest" in found
    assert "4.5 times as fast, 5.0 times the images a second, 10.0 times smaller" in found


@pytest.mark.parametrize("rows", [[], [peer_row("Kinglet", -0.001, 0.2, chosen=True), peer_row("worse", -0.02, 0.5)]])
def test_nothing_is_said_where_no_peer_is_as_good(rows):
    assert peers.beside_the_fastest_peer(rows) == ""


def test_what_a_problem_reached_is_a_row_with_its_score_difference_and_times(results: Path) -> None:
    between = {"value": 0.891, "low": 0.869, "high": 0.921}
    model = {"input_size": 416, "precision": "fp32", "score": between, "p50_ms": 50.0, "size_bytes": 16_000_000}
    difference = {"value": -0.005, "low": -0.012, "high": 0.001}
    figures = {
        "data": "blood cells",
        "problem": "detection",
        "headline": "map_50",
        "generated": False,
        "test_examples": 72,
        "teacher": {**model, "name": "teacher", "difference_to_teacher": dict.fromkeys(difference, 0.0)},
        "chosen": {**model, "name": "small", "p50_ms": 25.0, "difference_to_teacher": difference},
        "out_of_fold": {},
    }
    write_result(results, "problem_detection", command="c", repetitions=1, figures=figures)
    shown = table.benchmarks_table(results)
    assert "| Detection: blood cells, 416 px, 72 for the test | teacher at least 85 %; int8 at most 1 point" in shown
    assert (
        "| teacher mAP50 89.10 % (86.90 to 92.10); small **-0.50 (-1.20 to +0.10) points**, **2.0 times as fast** "
        "(25.00 instead of 50.00 ms), 16.00 MB instead of 16.00 MB |" in shown
    )
    there = {"chosen": {**figures["chosen"], "score_without_vnni": between}}
    write_result(results, "problem_detection", command="c", repetitions=1, figures={**figures, **there})
    assert "16.00 MB; without VNNI 89.10 % (86.90 to 92.10) |" in table.benchmarks_table(results)
    write_result(
        results, "problem_video", command="c", repetitions=1, figures={**figures, "problem": "video", "generated": True}
    )
    assert "| Video: blood cells, made for it, 416 px" in table.benchmarks_table(results)
    masks = {
        "problem": "segmentation",
        "headline": "miou",
        "out_of_fold": {"pixel_accuracy": {"value": 0.931, "low": 0.928, "high": 0.934}, "dice": between},
    }
    write_result(results, "problem_segmentation", command="c", repetitions=1, figures={**figures, **masks})
    shown = table.benchmarks_table(results)
    assert "pixel accuracy at least 93 % cross-validated; int8 at most 1 point of mean IoU below" in shown
    assert "; cross-validated pixel accuracy **93.10 % (92.80 to 93.40)**, Dice **89.10 % (86.90 to 92.10)** |" in shown
