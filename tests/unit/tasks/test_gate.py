"""The step `gate` and what acts on its verdict, on small models: first run, champions of all sorts, sealed images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tasks.benchmark
import tasks.bundle
import tasks.evaluate
import tasks.gate
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.corruptions.kinds import KINDS, corrupt
from kinglet.evidence.corruptions.severities import SEVERITIES
from kinglet.evidence.corruptions.streams import image_keys
from kinglet.runtime import bundles
from kinglet.runtime.predictor import Predictor
from tasks.artifacts import BUNDLE, VERDICT
from tasks.bundle_answers import answers_of, read_part
from tasks.champion_robustness import other_pictures
from tasks.open_sealed import open_sealed
from tasks.sealed_looks import LOOKS
from tasks.verdict import promote, read_verdict
from tests.unit.tasks.small_project import CLASSES, Recipe, build_project, noisy_quadrants, parameters, write_model

MANIFEST = Path("artifacts/split/manifest.parquet")
CHAMPION = Path("champion")
# So wide that the models of a small project pass.
LENIENT: dict[str, Any] = {
    "max_accuracy_drop": 0.6,
    "min_class_accuracy": 0.1,
    "max_class_drop": 0.9,
    "max_robustness_drop": 0.9,
    "max_champion_robustness_drop": 0.9,
    "max_slowdown": 1000,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        table = pq.read_table(MANIFEST)
        splits = np.array(table["split"].to_pylist(), object)
        splits[np.flatnonzero(splits == "train")[::3]] = "sealed"
        pq.write_table(table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits)), MANIFEST)
        write_json(Path("artifacts/check_data/checks.json"), {"n_critical": 0, "n_warnings": 1, "findings": []})
        for task in (tasks.evaluate, tasks.robustness, tasks.benchmark, tasks.select, tasks.bundle):
            task.run(parameters())
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "project"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("KINGLET_CACHE", str(root / "cache"))
    return root


def judged(**policy: Any) -> dict[str, Any]:
    tasks.gate.run(parameters(gate={**LENIENT, **policy}, split={"sealed": 0.1}))
    return read_json(VERDICT)


def check_of(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in verdict["checks"] if check["name"] == name)


def put_champion(size: int, classes: list[str], channels: int = 3, called: dict[str, str] | None = None) -> None:
    """Train a champion of this size on the project's images and pack it with its classes in this order.

    called: other names for classes.
    """
    images, labels = noisy_quadrants(160, 24, 3)
    small = np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])
    packed = small if channels == 3 else np.ascontiguousarray(small[:, :, :, :1])
    numbers = np.array([classes.index(CLASSES[label]) for label in labels])
    recipe = Recipe("champion-model", "elsewhere", "", size, 24)
    names = [(called or {}).get(name, name) for name in classes]
    folder = write_model(Path("other").resolve(), recipe, packed, numbers, np.ones(160, bool), names)
    tasks.bundle.pack(CHAMPION, folder / "model.onnx", folder / "none", False, packed[:4], numbers[:4], "# card\n")


def test_the_first_run_says_that_there_is_no_champion_and_holds_the_model_against_its_teacher(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = judged()
    assert verdict["verdict"] == "accepted"
    assert verdict["reference"] == "teacher"
    assert "There is no champion yet" in verdict["paragraph"]
    assert verdict["paragraph"] in capsys.readouterr().err
    assert verdict["paragraph"] in Path("artifacts/gate/verdict.md").read_text()
    # The same figures as `evaluate` found, by way of the bundle.
    scores = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    chosen = verdict["challenger"]["model"]
    assert verdict["accuracy"]["challenger"]["value"] == scores[chosen]["test"]["accuracy"]["value"]
    assert verdict["accuracy"]["reference"]["value"] == scores["teacher"]["test"]["accuracy"]["value"]
    assert check_of(verdict, "robustness")["outcome"] == "passed"
    assert "champion's robustness" not in {check["name"] for check in verdict["checks"]}
    before = VERDICT.read_bytes()
    judged()
    assert VERDICT.read_bytes() == before


def test_a_champion_is_scored_again_on_these_images_with_its_own_order_of_classes(project: Path) -> None:
    put_champion(16, CLASSES[::-1])
    verdict = judged()
    assert verdict["reference"] == "champion"
    packed, part = np.load("artifacts/ingest/images_16.npy"), read_part("test")
    answered = Predictor(CHAMPION).predict(packed[part.rows]).classes
    right = np.mean([name == CLASSES[label] for name, label in zip(answered, part.labels, strict=True)])
    assert right > 0.4
    assert verdict["accuracy"]["reference"]["value"] == pytest.approx(right, abs=1e-6)
    assert "ms of the champion" in check_of(verdict, "speed")["reason"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_champion_of_another_input_size_gets_the_original_images(project: Path, channels: int) -> None:
    put_champion(20, CLASSES, channels)
    images, _ = noisy_quadrants(160, 24, 3)
    part = read_part("test")
    for path, row in zip(part.paths, part.rows, strict=True):
        file = Path("photos", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(file, "PNG")
    assert judged()["reference"] == "champion"
    champion = Predictor(CHAMPION)
    expected = [CLASSES.index(name) for name in champion.predict([images[row] for row in part.rows]).classes]
    assert answers_of(champion, part, CLASSES, parameters().data).tolist() == expected
    Path("photos", part.paths[0]).unlink()
    with pytest.raises(KingletError, match="cannot be read from data"):
        judged()


def test_a_champion_with_other_classes_refuses_with_the_reason(project: Path) -> None:
    put_champion(16, CLASSES, called={"top": "up"})
    verdict = judged()
    assert verdict["verdict"] == "refused"
    reason = check_of(verdict, "accuracy")["reason"]
    assert "only the champion knows up; only the challenger knows top" in reason
    assert "gate.champion" in reason
    assert verdict["accuracy"]["reference"] is None
    # What needs no champion is judged all the same.
    assert check_of(verdict, "every class")["outcome"] == "passed"


def test_a_damaged_champion_or_a_missing_folder_is_said(project: Path) -> None:
    put_champion(16, CLASSES)
    (CHAMPION / "labels.json").write_text("[]")
    with pytest.raises(KingletError, match=r"labels\.json is not what"):
        judged()
    (CHAMPION / bundles.CHECKSUMS).unlink()
    with pytest.raises(KingletError, match="SHA256SUMS is missing"):
        judged()
    with pytest.raises(KingletError, match="the folder elsewhere does not exist"):
        judged(champion="elsewhere")


@pytest.mark.parametrize(
    ("policy", "failed"),
    [
        ({"size_mb": 1e-4}, "size"),
        ({"latency_ms": 1e-6}, "latency"),
        ({"memory_mb": 1e-6}, "memory"),
        ({"min_class_accuracy": 1.0}, "every class"),
        ({"max_accuracy_drop": 0.0}, "accuracy"),
        ({"max_data_warnings": 0}, "data quality"),
    ],
)
def test_a_refused_model_is_a_result_and_no_error(project: Path, policy: dict[str, Any], failed: str) -> None:
    verdict = judged(**policy)
    assert verdict["verdict"] == "refused"
    assert check_of(verdict, failed)["outcome"] == "failed"
    assert verdict["paragraph"].startswith("Refused: ")
    assert check_of(verdict, failed)["reason"] in verdict["paragraph"]


def test_golden_answers_that_differ_refuse(project: Path) -> None:
    with np.load(BUNDLE / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["probabilities"] = arrays["probabilities"][::-1]
    (BUNDLE / "golden.npz").write_bytes(bundles.npz_bytes(arrays))
    bundles.seal(BUNDLE)
    assert check_of(judged(), "golden answers")["outcome"] == "failed"


def test_robustness_counts_where_it_was_measured(project: Path) -> None:
    name = read_json(Path("artifacts/select/choice.json"))["chosen"]
    lost = {"value": -0.2, "low": -0.22, "high": -0.18}
    write_json(
        Path("artifacts/robustness/scores.json"),
        {"models": {name: {"difference_to_teacher": lost, "beyond_clean": lost}}},
    )
    assert check_of(judged(max_robustness_drop=0.1), "robustness")["outcome"] == "failed"
    assert check_of(judged(max_robustness_drop=0.3), "robustness")["outcome"] == "passed"
    write_json(Path("artifacts/robustness/scores.json"), {"models": {}})
    assert check_of(judged(), "robustness")["outcome"] == "not judged"


def right_on_corrupted(predictor: Predictor, images: np.ndarray, labels: list[str]) -> np.ndarray:
    """Return the share of each image's corrupted versions that are answered right, one by one, as a server answers."""
    shares = []
    for image, label in zip(images[:, None], labels, strict=True):
        versions = [corrupt(image, kind, severity, image_keys(image)) for kind in KINDS for severity in SEVERITIES]
        shares.append(np.mean([answer == label for answer in predictor.predict(np.concatenate(versions)).classes]))
    return np.array(shares)


@pytest.mark.parametrize(("size", "channels"), [(16, 3), (20, 1)])
def test_the_champion_is_scored_on_the_corrupted_images_of_the_challenger(
    project: Path, size: int, channels: int
) -> None:
    put_champion(size, CLASSES[::-1], channels)
    if (size, channels) != (16, 3):
        images, _ = noisy_quadrants(160, 24, 3)
        for path, row in zip(read_part("test").paths, read_part("test").rows, strict=True):
            Path("photos", path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(Path("photos", path), "PNG")
    check = check_of(judged(), "champion's robustness")
    rows = pq.read_table("artifacts/robustness/answers.parquet")["index"].unique().to_numpy()
    packed, labels = np.load("artifacts/ingest/images_24.npy")[rows], [CLASSES[row % 4] for row in rows]
    changes = [right_on_corrupted(Predictor(folder), packed, labels) for folder in (BUNDLE, CHAMPION)]
    assert check["difference"]["value"] == pytest.approx(np.mean(changes[0] - changes[1]), abs=1e-6)
    assert check["difference"]["low"] < check["difference"]["value"] < check["difference"]["high"]
    assert "to the champion under corruption" in check["reason"]


def test_a_loss_of_robustness_to_the_champion_refuses(project: Path) -> None:
    put_champion(16, CLASSES)
    name = read_json(Path("artifacts/select/choice.json"))["chosen"]
    table = pq.read_table("artifacts/robustness/answers.parquet")
    lost = np.where(np.array(table["model"].to_pylist()) == name, 0, table["corrupted"].to_numpy()).astype(np.int16)
    pq.write_table(table.set_column(3, "corrupted", pa.array(lost)), "artifacts/robustness/answers.parquet")
    verdict = judged(max_champion_robustness_drop=0.05)
    assert check_of(verdict, "champion's robustness")["outcome"] == "failed"
    assert "Champion's robustness: Loses more than 5 points" in verdict["paragraph"]


def test_where_the_champions_robustness_cannot_be_judged_the_verdict_says_why(project: Path) -> None:
    put_champion(16, CLASSES)
    unlimited = check_of(judged(max_champion_robustness_drop=None), "champion's robustness")
    assert (unlimited["outcome"], "No limit" in unlimited["reason"]) == ("not judged", True)
    # Its input is larger than the corrupted images, which the originals would fill.
    facts = read_json(Path("artifacts/ingest/source.json"))
    champion, small = Predictor(CHAMPION), {"teacher": 8, "low_resolution": 8, "student": 8, "students": {}}
    write_json(Path("artifacts/ingest/source.json"), {**facts, "input_sizes": {**small, "candidates": []}})
    assert "takes 16 pixels" in other_pictures(champion, "stretch")
    assert "square by stretch" in other_pictures(champion, "pad")
    write_json(Path("artifacts/ingest/source.json"), facts)
    table = pq.read_table("artifacts/robustness/answers.parquet")
    pq.write_table(table.slice(0, 0), "artifacts/robustness/answers.parquet")
    assert "were not scored" in check_of(judged(), "champion's robustness")["reason"]
    others = table.set_column(1, "index", pa.array(np.full(len(table), 10_000)))
    pq.write_table(others, "artifacts/robustness/answers.parquet")
    with pytest.raises(KingletError, match="Other images were corrupted"):
        judged()


def test_a_bundle_of_another_model_than_the_chosen_one_is_refused_by_name(project: Path) -> None:
    shutil.rmtree(BUNDLE)
    put_champion(16, CLASSES)
    shutil.copytree(CHAMPION, BUNDLE)
    with pytest.raises(KingletError, match="does not hold"):
        judged()


def test_an_accepted_bundle_is_promoted_and_then_stays(project: Path) -> None:
    put_champion(16, CLASSES)
    (CHAMPION / "README.md").write_text("kept")
    lenient = parameters(gate=LENIENT, split={"sealed": 0.1})
    with pytest.raises(KingletError, match="the gate has not judged"):
        promote(lenient)
    judged()
    assert promote(lenient) == CHAMPION
    assert {path.name: path.read_bytes() for path in CHAMPION.iterdir() if path.name != "README.md"} == {
        path.name: path.read_bytes() for path in BUNDLE.iterdir()
    }
    assert (CHAMPION / "README.md").read_text() == "kept"
    with pytest.raises(KingletError, match="out of date: the champion changed"):
        read_verdict(lenient)
    verdict = judged()
    assert "stay in production" in verdict["paragraph"]
    assert check_of(verdict, "accuracy")["difference"] == {"value": 0, "low": 0, "high": 0}
    assert check_of(verdict, "champion's robustness")["reason"] == "The challenger is the champion itself."


def test_a_refused_bundle_is_not_promoted_and_a_verdict_under_another_policy_is_out_of_date(project: Path) -> None:
    judged(size_mb=1e-4)
    strict = parameters(gate={**LENIENT, "size_mb": 1e-4}, split={"sealed": 0.1})
    with pytest.raises(KingletError, match=r"Not promoted\. Refused"):
        promote(strict)
    assert list(CHAMPION.iterdir()) == []
    with pytest.raises(KingletError, match="the policy changed"):
        promote(parameters(gate=LENIENT, split={"sealed": 0.1}))


def test_sealed_images_are_scored_by_no_step_and_each_look_is_counted_once(project: Path) -> None:
    with_sealed = parameters(gate=LENIENT, split={"sealed": 0.1})
    rows = set(read_part("sealed").rows.tolist())
    scored = pq.read_table("artifacts/evaluate/predictions.parquet")["index"].to_pylist()
    assert rows
    assert not rows & set(scored)
    assert "never looked at" in check_of(judged(), "sealed images")["reason"]

    look, is_new = open_sealed(with_sealed)
    assert is_new
    assert look["images"] == len(rows)
    assert read_json(LOOKS) == [look]
    assert open_sealed(with_sealed) == (look, False)  # nothing new is to be seen
    assert len(read_json(LOOKS)) == 1
    verdict = judged()
    assert check_of(verdict, "sealed images")["outcome"] == "passed"
    assert check_of(verdict, "sealed images")["looks"] == 1

    # Beside a champion it is another comparison, and another look.
    put_champion(16, CLASSES)
    assert "looked at once, not for this comparison" in check_of(judged(), "sealed images")["reason"]
    assert open_sealed(with_sealed)[1]
    assert check_of(judged(), "sealed images")["looks"] == 2


def test_what_the_sealed_images_show_refuses_as_well(project: Path) -> None:
    strict = parameters(gate={**LENIENT, "max_accuracy_drop": 0.0}, split={"sealed": 0.1})
    look, _ = open_sealed(strict)
    assert not look["passed"]
    verdict = judged()
    assert verdict["verdict"] == "refused"
    assert "Sealed images: " in verdict["paragraph"]


def test_without_sealed_images_there_is_nothing_to_open_and_a_lost_count_is_no_zero(project: Path) -> None:
    with pytest.raises(KingletError, match="No images are sealed"):
        open_sealed(parameters(gate=LENIENT))
    LOOKS.write_text("{}")
    with pytest.raises(KingletError, match=r"sealed_looks\.json is missing or damaged"):
        judged()


def test_the_teachers_answers_to_sealed_images_are_those_that_evaluate_would_give(project: Path) -> None:
    from tasks.open_sealed import teacher_answers

    table = pq.read_table("artifacts/evaluate/predictions.parquet")
    kept = table.filter(pc.and_(pc.equal(table["model"], "teacher"), pc.equal(table["split"], "test")))
    assert teacher_answers(read_part("test")).tolist() == kept["predicted"].to_pylist()
