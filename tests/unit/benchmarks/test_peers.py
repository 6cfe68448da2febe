"""Kinglet beside its peers: what they are given, how a failing one is told, how figures come about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import table
from benchmarks.peers import __main__ as command
from benchmarks.peers import environments, scoring, task_folder
from benchmarks.peers.reasons import LONGEST_REASON, PeerError, each_or_reason, reason_in
from benchmarks.peers.recipes.task import Task
from benchmarks.peers.roster import PEERS, pinned
from benchmarks.peers.scoring import Entrant, score_and_time, scores_of, size_bytes, timings_of
from benchmarks.peers.turns import Worker, time_workers
from benchmarks.results import ROOT
from benchmarks.tables import peers
from kinglet.atomic import read_json, write_json
from kinglet.compression.calibration import FixedRange, stream_histograms
from kinglet.compression.pixel_input import pixel_ranges, share_normalization, take_pixels
from kinglet.compression.quantization import quantize_static
from kinglet.errors import KingletError
from kinglet.models.export import to_onnx
from kinglet.models.inverted_residual import BlockSpec, InvertedResidualNet, InvertedResidualSpec
from kinglet.runtime.latency import Timing
from kinglet.runtime.preprocessing import Preprocessing, normalize

RECIPES = ROOT / "benchmarks" / "peers" / "recipes"


def small_network() -> nn.Module:
    torch.manual_seed(0)
    blocks = (BlockSpec(8, 8, 3, 1, False, True), BlockSpec(16, 8, 5, 1, True, True))
    return InvertedResidualNet(InvertedResidualSpec(1, 8, blocks, 16, 3)).eval()


# --- the roster and its files


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_a_recipe_and_pinned_versions(peer: Any) -> None:
    assert (RECIPES / f"{peer.recipe or peer.name}.py").is_file()
    assert not peer.follows or peer.follows in [other.name for other in PEERS[: PEERS.index(peer)]]
    assert set(peer.versions) == set(peer.packages)
    lines = (environments.REQUIREMENTS / f"{peer.environment}.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and "==" not in line] == []


def test_a_package_that_is_not_pinned_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("numpy==1.0\n")
    assert pinned("x", "numpy", tmp_path) == "1.0"
    with pytest.raises(ValueError, match="no olive-ai"):
        pinned("x", "olive-ai", tmp_path)


@pytest.mark.parametrize("module", ["worker", *(f"recipes.{path.stem}" for path in sorted(RECIPES.glob("*.py")))])
def test_what_runs_in_a_peers_environment_imports_nothing_of_ours(module: str) -> None:
    text = (ROOT / "benchmarks" / "peers" / f"{module.replace('.', '/')}.py").read_text()
    ours = [line.strip() for line in text.splitlines() if "import" in line and ("kinglet" in line or "tasks" in line)]
    assert [line for line in ours if line.startswith(("import", "from"))] == []


# --- the task folder


def test_images_are_given_as_the_model_takes_them(tmp_path: Path) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 1), dtype=np.uint8)
    rows = np.arange(2500)[::-1].copy()
    preprocessing = Preprocessing(4, 1, "stretch", (0.4,), (0.2,))
    task_folder.write_inputs(tmp_path / "calibration.npy", packed, rows, preprocessing)
    task = Task(tmp_path, tmp_path, tmp_path, {})
    assert np.array_equal(task.array("calibration"), normalize(packed[rows], preprocessing))
    assert [len(batch) for batch in task.batches("calibration", 1000)] == [1000, 1000, 500]


def test_a_model_that_takes_pixels_is_scored_and_timed_on_pixels(tmp_path: Path) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    preprocessing = Preprocessing(8, 1, "stretch", (0.4,), (0.2,), takes_pixels=True)
    task_folder.write_inputs(tmp_path / "pixels.npy", packed, np.array([4, 1]), preprocessing)
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), packed[[4, 1]])
    assert scoring.input_of(tmp_path / "pixels.npy") == {"shape": (8, 8, 1), "dtype": "uint8"}
    shared = share_normalization(to_onnx(small_network(), 8, 1, {}), preprocessing)
    assert shared is not None
    float_model, alike = shared
    histograms = stream_histograms(float_model, normalize(packed, alike))
    fixed = {name: FixedRange(*of) for name, of in pixel_ranges(alike).items() if name in histograms}
    quantized = quantize_static(float_model, {**histograms, **fixed}, "minmax")
    (tmp_path / "model.onnx").write_bytes(take_pixels(quantized, alike).SerializeToString())
    worker = Worker(Path(sys.executable), tmp_path / "model.onnx", tmp_path / "log")
    logits, _ = scoring.answers_of(worker, tmp_path / "pixels.npy", "student", tmp_path)
    assert logits.shape == (2, 3)
    assert worker.ask("open", batch_size=2, threads=1, **scoring.input_of(tmp_path / "pixels.npy"))["runs"] >= 1
    assert len(worker.ask("block", runs=2)["ms"]) == 2
    worker.close()


@pytest.mark.parametrize("saturates", [False, True])
def test_the_file_scored_is_the_one_that_is_served_here(tmp_path: Path, monkeypatch, saturates: bool) -> None:
    monkeypatch.setattr(task_folder, "products_saturate", lambda: saturates)
    (tmp_path / "model.onnx").touch()
    assert task_folder.served_file(tmp_path).name == "model.onnx"
    (tmp_path / "model-without-vnni.onnx").touch()
    expected = "model-without-vnni.onnx" if saturates else "model.onnx"
    assert task_folder.served_file(tmp_path).name == expected


def test_accuracy_is_that_on_the_images_set_aside(tmp_path: Path) -> None:
    np.save(tmp_path / "choice.npy", np.zeros((40, 1, 2, 2), np.float32))
    np.save(tmp_path / "choice_labels.npy", np.array([1] * 30 + [0] * 10))
    task = Task(tmp_path, tmp_path, tmp_path, {})
    assert task.accuracy(lambda batch: np.tile([0.0, 1.0], (len(batch), 1))) == pytest.approx(0.75)
    task.write_settings("as it comes", tried={"a": 1})
    assert read_json(tmp_path / "settings.json") == {"settings": "as it comes", "tried": {"a": 1}}


def test_the_network_loads_and_answers_alike_without_kinglet(tmp_path: Path) -> None:
    network = small_network()
    images = torch.randn(2, 1, 8, 8)
    torch.save(task_folder.as_plain_graph(network), tmp_path / "teacher.pt")
    code = (
        "import sys, torch\n"
        "network = torch.load(sys.argv[1], weights_only=False)\n"
        "assert not [name for name in sys.modules if name.startswith('kinglet')]\n"
        "torch.save(network(torch.load(sys.argv[2])), sys.argv[3])\n"
    )
    torch.save(images, tmp_path / "images.pt")
    paths = [str(tmp_path / name) for name in ("teacher.pt", "images.pt", "logits.pt")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), network(images))


def test_a_peer_may_train_as_long_as_the_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match="does not say how long") as caught:
        task_folder.training_seconds()
    assert "--training-minutes" in caught.value.hint
    steps = {"finetune": 500.0, "distill": 60.0, "quantize": 5.5}
    timings = {name: {"started": 10.0, "ended": 10 + seconds, "exit_code": 0} for name, seconds in steps.items()}
    write_json(tmp_path / ".kinglet" / "timings.json", timings)
    assert task_folder.training_seconds() == pytest.approx(65.5)


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match="no finished run"):
        task_folder.read_run()


# --- peers that fail


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("fine\nModuleNotFoundError: No module named 'six'\n", "ModuleNotFoundError: No module named 'six'."),
        (
            "ERROR: No matching distribution found for x==1\nnotice: upgrade pip\n",
            "ERROR: No matching distribution found for x==1.",
        ),
        ("OSError: /home/me/.kinglet/peers/olive/x.onnx is gone", "OSError: x.onnx is gone."),
        ("ERROR: https://index.example/simple/x/ does not answer", "ERROR: an address does not answer."),
        ("killed\n\n", "killed."),
        ("", "it said nothing."),
    ],
)
def test_the_reason_is_the_error_in_the_log_without_paths(tmp_path: Path, printed: str, reason: str) -> None:
    (tmp_path / "log").write_text(printed)
    assert reason_in(tmp_path / "log") == reason


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ValueError: " + "many words " * 100)
    assert len(reason_in(tmp_path / "log")) <= LONGEST_REASON


def test_one_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def action(name: str) -> int:
        if name == "b":
            raise PeerError("pip cannot install it.")
        return len(name)

    failed = {"c": "earlier"}
    assert each_or_reason(["a", "b", "c", "dd"], action, failed) == {"a": 1, "dd": 2}
    assert failed == {"b": "pip cannot install it.", "c": "earlier"}
    assert "b: pip cannot install it." in capsys.readouterr().err


def test_an_environment_that_pip_cannot_fill_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text("this is no requirement\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PeerError, match="pip cannot install it: ERROR: Invalid requirement"):
        environments.environment(tmp_path / "made", "x")


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text("")
    commands = []
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)

    def run_logged(command: list[str], *_: Any, **__: Any) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1], "bin").mkdir(parents=True)

    monkeypatch.setattr(environments, "run_logged", run_logged)
    first, again = (environments.environment(tmp_path / "made", "x") for _ in range(2))
    assert (first, len(commands)) == (again, 2)
    (tmp_path / "x.txt").write_text("numpy==1.0\n")
    assert environments.environment(tmp_path / "made", "x") != first


def recipe_folder(tmp_path: Path, code: str) -> Path:
    """Return a python that runs `code` whatever module it is asked to run."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\noutput=$4\n{code}\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("echo 'ImportError: no olive here'; exit 1", "its recipe fails: ImportError: no olive here."),
        (
            "echo 'MinMax-8: 0.91'; kill -9 $$",
            "its recipe fails: it was killed, as the system does with what takes more memory than there is.",
        ),
        ("true", "its recipe left no model."),
        ("sleep 30", "its recipe fails: stopped after 0 minutes."),
    ],
)
def test_a_recipe_that_fails_says_why(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(PeerError) as caught:
        environments.run_recipe(recipe_folder(tmp_path, code), "olive", tmp_path, tmp_path / "out", 2)
    assert str(caught.value) == reason


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_a_recipe_gives_an_onnx_file_or_openvinos(tmp_path: Path, name: str) -> None:
    python = recipe_folder(tmp_path, f"echo x > $output/{name}")
    assert environments.run_recipe(python, "olive", tmp_path, tmp_path / "out", 9) == tmp_path / "out" / name


# --- scores and times


def test_scores_are_paired_with_the_teachers() -> None:
    labels = np.zeros(100, np.int64)
    right, wrong = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    teacher = np.array([right] * 95 + [wrong] * 5)
    other = np.array([right] * 92 + [wrong] * 8)
    scores = scores_of({"teacher": teacher, "other": other}, labels)
    assert scores["other"]["test_accuracy"]["value"] == pytest.approx(0.92)
    difference = scores["other"]["difference_to_teacher"]
    assert difference["value"] == pytest.approx(-0.03)
    assert difference["low"] < -0.03 < difference["high"] <= 0
    assert scores["teacher"]["difference_to_teacher"]["value"] == 0


def test_ratios_are_of_medians_to_the_teachers() -> None:
    timings = {
        "teacher": Timing(32, 8.0, 7.9, 8.1, 9.0, 100, 10),
        "other": Timing(32, 3.0, 2.9, 3.1, 4.0, 100, 10),
    }
    found = timings_of(timings)
    assert (found["teacher"]["times_faster"], found["other"]["times_faster"]) == (1.0, 2.667)
    assert found["teacher"]["images_per_second"] == 4000.0


def test_an_openvino_model_weighs_what_both_files_weigh(tmp_path: Path) -> None:
    for name, size in (("model.xml", 3), ("model.bin", 40), ("model.onnx", 5)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert (size_bytes(tmp_path / "model.xml"), size_bytes(tmp_path / "model.onnx")) == (43, 5)


class FakeWorker:
    """A worker that says when it was asked, and fails from its third block on if it is told to."""

    def __init__(self, name: str, asked: list[str], ms: float, fails: bool = False) -> None:
        self.name, self.asked, self.ms, self.fails = name, asked, ms, fails

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        self.asked.append(f"{do} {self.name}")
        if do == "open":
            return {"runs": 4}
        if self.fails and self.asked.count(f"block {self.name}") > 2:
            raise PeerError("its model does not run: killed.")
        return {"ms": [self.ms] * request["runs"]}


def test_models_take_turns_and_one_that_dies_leaves_the_others() -> None:
    asked: list[str] = []
    workers: Any = {
        "a": FakeWorker("a", asked, 1.0),
        "b": FakeWorker("b", asked, 2.0),
        "c": FakeWorker("c", asked, 3.0, fails=True),
    }
    failed: dict[str, str] = {}
    inputs = {name: {"shape": (1, 4, 4), "dtype": "float32"} for name in workers}
    timings = time_workers(workers, inputs, 1, 1, 0.01, failed, rest=lambda seconds: None)
    assert asked[:9] == [*(f"open {name}" for name in "abc"), *(f"block {name}" for name in "abcbca")]
    assert failed == {"c": "its model does not run: killed."}
    assert {name: timing.p50_ms for name, timing in timings.items()} == {"a": 1.0, "b": 2.0}


@pytest.fixture
def entrant(tmp_path: Path) -> Entrant:
    model = to_onnx(small_network(), 8, 1, {})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "test_8.npy", np.random.default_rng(0).standard_normal((70, 1, 8, 8), dtype=np.float32))
    return Entrant(tmp_path / "model.onnx", Path(sys.executable), tmp_path / "test_8.npy", {"tool": "Kinglet"})


def test_a_worker_answers_and_times_a_model(entrant: Entrant, tmp_path: Path) -> None:
    worker = Worker(entrant.python, entrant.model, tmp_path / "log")
    logits, facts = scoring.answers_of(worker, entrant.images, "teacher", tmp_path)
    assert logits.shape == (70, 3)
    assert facts["runtime"].startswith("onnxruntime ")
    with torch.inference_mode():
        expected = small_network()(torch.from_numpy(np.load(entrant.images)))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    assert worker.ask("open", batch_size=2, threads=1, **scoring.input_of(entrant.images))["runs"] >= 1
    assert len(worker.ask("block", runs=3)["ms"]) == 3
    worker.close()


def test_a_model_that_does_not_load_has_a_reason_and_the_others_figures(entrant: Entrant, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = Entrant(tmp_path / "broken.onnx", entrant.python, entrant.images, {"tool": "Olive"})
    failed: dict[str, str] = {}
    entrants = {"teacher": entrant, "olive": broken}
    measured = score_and_time(entrants, np.zeros(70, np.int64), tmp_path / "answers", 0.01, failed)
    assert set(measured) == {"teacher"}
    assert measured["teacher"]["latency"]["times_faster"] == 1.0
    assert failed["olive"].startswith("its model does not run: ")


def test_without_the_teacher_nothing_can_be_compared(entrant: Entrant, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = Entrant(tmp_path / "broken.onnx", entrant.python, entrant.images, {})
    with pytest.raises(KingletError, match="The teacher itself does not run"):
        score_and_time({"teacher": broken}, np.zeros(70, np.int64), tmp_path / "answers", 0.01, {})


# --- the command


def test_the_result_has_a_row_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards: Any = {name: (SimpleNamespace(precision="fp32", input_size=8), tmp_path / name) for name in ("a", "teacher")}
    run = task_folder.FinishedRun(cards, chosen="a")
    images = dict.fromkeys(cards, tmp_path / "test_8.npy")

    def prepare(*_: Any) -> tuple[Any, ...]:
        return run, command.Tests(images, np.zeros(4, np.int64)), {"training_seconds": 60.0, "test_images": 4}

    def peer_entrant(peer: Any, *_: Any, **__: Any) -> Entrant:
        if peer.name == "olive":
            raise PeerError("pip cannot install it.")
        return Entrant(tmp_path, tmp_path, tmp_path, command.row_of(peer))

    def score_and_time(entrants: dict[str, Entrant], *_: Any) -> dict[str, Any]:
        return {name: {**entrant.row, "measured": True} for name, entrant in entrants.items()}

    for stand_in in (prepare, peer_entrant, score_and_time):
        monkeypatch.setattr(command, stand_in.__name__, stand_in)
    words = ["--work", "work", "--results", "results", "--only", "nncf", "olive"]
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    monkeypatch.chdir(tmp_path)
    assert command.main() == 0
    result = read_json(tmp_path / "results" / "peers.json")
    assert result["command"] == f".venv/bin/python -m benchmarks.peers {' '.join(words)}"
    rows = result["figures"]["models"]
    assert [row["name"] for row in rows] == ["teacher", "a", "nncf", "olive"]
    assert [row["name"] for row in rows if row.get("chosen")] == ["a"]
    assert [row["name"] for row in rows if row.get("measured")] == ["teacher", "a", "nncf"]
    assert rows[3]["failed"] == "pip cannot install it."


def test_who_follows_needs_the_model_of_the_other(tmp_path: Path) -> None:
    peer = next(peer for peer in PEERS if peer.follows)
    with pytest.raises(PeerError, match="it starts from the model of torch_pruning"):
        command.make_model(peer, tmp_path, tmp_path, 1)


def test_a_model_is_taken_again_for_the_same_task_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("task.json", "teacher.onnx", "calibration.npy", "choice.npy", "train_rows.npy", "train_labels.npy")
    (tmp_path / "task").mkdir()
    for name in names:
        (tmp_path / "task" / name).write_text(name)
    python = recipe_folder(
        tmp_path, 'echo x > $output/model.onnx; echo "{\\"settings\\": \\"s\\"}" > $output/settings.json'
    )
    made = []
    run_recipe = command.run_recipe

    def counted(*arguments: Any) -> Path:
        made.append(arguments)
        return run_recipe(*arguments)

    monkeypatch.setattr(command, "environment", lambda *_: python)
    monkeypatch.setattr(command, "run_recipe", counted)
    rows = [
        command.peer_entrant(PEERS[0], tmp_path, tmp_path, tmp_path, 9, take_made=take).row for take in (False, True)
    ]
    assert (len(made), rows[0]) == (1, rows[1])
    assert rows[0]["recipe_seconds"] >= 0
    (tmp_path / "task" / "choice.npy").write_text("others")
    command.peer_entrant(PEERS[0], tmp_path, tmp_path, tmp_path, 9, take_made=True)
    command.peer_entrant(PEERS[0], tmp_path, tmp_path, tmp_path, 9)
    assert len(made) == 3


@pytest.mark.parametrize(
    "source", ["data/fashion-mnist/dataset.yaml", "../photos/fashion-mnist", "s3://b/fashion-mnist"]
)
def test_a_data_set_is_called_as_its_folder_is(source: str) -> None:
    assert task_folder.data_set_name(source) == "fashion-mnist"


def test_a_checkout_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--run", str(tmp_path / "nowhere"), "--work", str(tmp_path)])
    assert command.main() == 2
    assert "nowhere is no folder." in capsys.readouterr().err


# --- the table

MEASURED = {
    "test_accuracy": {"value": 0.93, "low": 0.925, "high": 0.935},
    "difference_to_teacher": {"value": -0.002, "low": -0.004, "high": 0.0},
    "latency": {"p50_ms": 0.25, "times_faster": 2.04},
    "throughput": {"images_per_second": 12345.6, "times_faster": 3.0},
    "size_bytes": 3_800_000,
}
FIGURES = {
    "data": "fashion-mnist, 64 px",
    "calibration_images": 512,
    "test_images": 10000,
    "training_seconds": 240.0,
    "loads": {"latency": {"batch_size": 1, "threads": 1}, "throughput": {"batch_size": 32, "threads": 2}},
    "models": [
        {"tool": "Kinglet", "name": "small", "settings": "int8", "chosen": True, **MEASURED},
        {
            "tool": "NNCF in OpenVINO",
            "name": "nncf",
            "versions": {"nncf": "3.4.0"},
            "settings": "a | b",
            **MEASURED,
            "float_precision": "bf16",
        },
        {"tool": "Olive", "name": "olive", "versions": {"olive-ai": "0.13.0"}, "failed": "pip cannot install it."},
    ],
}


def test_the_table_shows_all_with_the_chosen_one_and_the_reasons(tmp_path: Path) -> None:
    result = {
        "command": ".venv/bin/python -m benchmarks.peers",
        "date": "2025-01-02",
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gb": 24.9},
        "figures": FIGURES,
    }
    write_json(tmp_path / "peers.json", result)
    section = peers.peers_section(tmp_path)
    assert section.startswith("## Beside its peers\n\n**fashion-mnist, 64 px.** The same network")
    assert "batch 1 on 1 thread; batch 32 on 2 threads" in section
    measured = "93.00 % (92.50 to 93.50) | -0.20 (-0.40 to +0.00) | 0.250 | 2.0 | 12,346 | 3.0 | 3.80 |"
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert rows[-3:] == [
        f"| **Kinglet, small** (chosen) | int8 | {measured}",
        f"| NNCF in OpenVINO 3.4.0 | a \\| b; floats in bf16 | {measured}",
        "| Olive 0.13.0 | no result: pip cannot install it. |  |  |  |  |  |  |  |",
    ]


def test_without_a_result_there_is_no_table(tmp_path: Path) -> None:
    assert peers.peers_section(tmp_path) == ""
    text = "<!-- peers:begin -->\n<!-- peers:end -->\n"
    assert table.with_block(text, "peers", "") == text
