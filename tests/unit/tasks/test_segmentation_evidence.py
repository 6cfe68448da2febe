"""evaluate, compare, select, robustness, gate and report for segmenters, on photos of blots."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.image_gate
import tasks.label_errors
import tasks.report
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.data.label_corrections import COLUMNS
from kinglet.errors import KingletError
from kinglet.evidence.bootstrap import Interval
from kinglet.evidence.corruptions.kinds import KINDS
from kinglet.runtime.segmentation import VOID
from kinglet.runtime.watched_answers import SHARED_WEIGHT
from tasks.artifacts import BUNDLE, mask_file, read_card
from tasks.monitoring_reference import monitoring_reference
from tests.unit.tasks.detector_project import latency_of
from tests.unit.tasks.page_of_controls import assert_a_control_is_on_the_page
from tests.unit.tasks.segmenter_project import (
    BAD,
    CLASSES,
    HEIGHT,
    RECIPES,
    SMALL,
    TEACHER,
    WIDTH,
    Recipe,
    build_segmenter_project,
    parameters,
    write_bundle,
    write_segmenter,
)
from tests.unit.tasks.test_report import Tags

NAMES = [recipe.name for recipe in RECIPES]
SCORES, COMPARISONS = Path("artifacts/evaluate/scores.json"), Path("artifacts/compare/comparisons.json")
CHOICE, VERDICT = Path("artifacts/select/choice.json"), Path("artifacts/gate/verdict.json")
REPORT = Path("artifacts/report/report.html")
LENIENT = {"max_accuracy_drop": 0.3, "max_class_drop": 0.5, "max_robustness_drop": 0.5, "min_class_accuracy": 0.2}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_segmenter_project(root)
    checks = read_json(root / "artifacts/check_data/checks.json")
    write_json(root / "artifacts/check_data/checks.json", {**checks, "n_critical": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.robustness):
            step.run(parameters())
        write_bundle(root, SMALL, BUNDLE)
        tasks.gate.run(parameters(gate=LENIENT))
        tasks.report.run(parameters())
    return root


@pytest.fixture
def project(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


@pytest.fixture
def copied(built, tmp_path, monkeypatch):
    """The project to change: a copy."""
    shutil.copytree(built, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def rows_of(split: str = "test") -> list[int]:
    """The images of a split."""
    manifest = pd.read_parquet("artifacts/split/manifest.parquet")
    return manifest.loc[manifest["split"] == split, "index"].tolist()


def masks_of(model: str) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted labelled pixels of all test images, flat."""
    truths = np.stack([np.asarray(Image.open(mask_file(row))) for row in rows_of()])
    found = np.stack([np.asarray(Image.open(f"artifacts/evaluate/masks/{model}/{row}.png")) for row in rows_of()])
    return truths[truths != VOID], found[truths != VOID]


def outcomes(verdict: dict) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in verdict["checks"]}


def test_scores_are_those_of_the_masks_that_are_kept(project):
    scores = read_json(SCORES)
    assert (scores["classes"], scores["teacher"], scores["headline"]) == (CLASSES, "teacher", "miou")
    assert sorted(scores["models"]) == sorted(NAMES)
    for name in NAMES:
        flat, test = masks_of(name), scores["models"][name]["test"]
        for score, expected in (
            ("miou", jaccard_score(*flat, average="macro")),
            ("dice", f1_score(*flat, average="macro")),
            ("pixel_accuracy", accuracy_score(*flat)),
        ):
            assert test[score]["value"] == pytest.approx(expected, abs=1e-6)
            assert 0 < test[score]["low"] < test[score]["value"] < test[score]["high"] < 1
        ious = [test["per_class"][label]["iou"]["value"] for label in CLASSES]
        np.testing.assert_allclose(ious, jaccard_score(*flat, average=None), atol=1e-6)
        assert test["pixels"] == len(flat[0]) == sum(test["support"].values()) == 10 * HEIGHT * (WIDTH - 4)
        assert np.sum(test["confusion"]) == test["pixels"]


def test_scores_of_a_domain_are_those_of_its_images_alone_and_stand_in_the_report(copied):
    file = Path("artifacts/split/manifest.parquet")
    manifest = pd.read_parquet(file)
    manifest["domain"] = np.where(np.arange(len(manifest)) // 3 % 3 == 0, "yard", "hall")
    manifest.to_parquet(file, index=False)
    for step in (tasks.evaluate, tasks.report):
        step.run(parameters())
    by_domain = {name: of_model["by_domain"] for name, of_model in read_json(SCORES)["models"].items()}
    text = REPORT.read_text()
    chapter = text[text.index('<section id="by-domain">') :].split("</section>")[0]
    for domain, found in by_domain["teacher"].items():
        assert f'<td class="name">{domain}</td><td class="n">{found["n"]}</td>' in chapter
        assert f"{100 * found['miou']['value']:.2f}" in chapter
    is_elsewhere = (manifest["split"] == "test") & (manifest["domain"] != "yard")
    manifest[~is_elsewhere].to_parquet(file, index=False)
    tasks.evaluate.run(parameters())
    for name, of_model in read_json(SCORES)["models"].items():
        assert by_domain[name]["yard"] == {"n": of_model["test"]["n"], "miou": of_model["test"]["miou"]}


def test_the_reference_counts_the_share_of_each_class_in_held_out_images(project):
    folder = Path("artifacts/finetune/teacher")
    reference = monitoring_reference(folder / "model.onnx", read_card(folder))
    assert (reference.problem, reference.classes) == ("segmentation", tuple(CLASSES))
    assert {histogram.counts.sum() for histogram in reference.columns.values()} == {
        len(rows_of("train")) * SHARED_WEIGHT,
        len([*rows_of("validation"), *rows_of("test")]) * SHARED_WEIGHT,
    }
    assert abs(reference.class_counts.sum() / SHARED_WEIGHT - 20) < 1e-3
    red = reference.columns["share of red"]
    assert red.edges.min() >= 0
    assert red.edges.max() < 0.5
    masks = [np.asarray(Image.open(mask_file(row))) for row in [*rows_of("validation"), *rows_of("test")]]
    true_share = np.mean([(mask == 2).mean() for mask in masks])
    assert reference.class_counts[2] / reference.class_counts.sum() == pytest.approx(true_share, abs=0.05)


def test_masks_are_kept_in_pixels_of_the_images_and_confusions_in_long_form(project):
    found = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    assert list(found) == ["model", "index", "path", "split", "truth", "predicted", "pixels"]
    assert found.dtypes.astype(str)[["index", "truth", "predicted", "pixels"]].tolist() == ["int64"] * 4
    own = found[found["split"] == "test"].groupby(["model", "index"])["pixels"].sum()
    assert set(own) == {HEIGHT * (WIDTH - 4)}  # void is in none
    with Image.open(f"artifacts/evaluate/masks/{SMALL.name}/{rows_of()[0]}.png") as mask:
        assert (mask.mode, mask.size) == ("L", (WIDTH, HEIGHT))


def test_the_teacher_differs_from_itself_by_nothing_and_others_by_paired_intervals(project):
    models = read_json(SCORES)["models"]
    assert models[TEACHER.name]["difference_to_teacher"]["test"] == {"value": 0, "low": 0, "high": 0}
    worse = models[BAD.name]["difference_to_teacher"]["test"]
    assert worse["high"] < -0.2
    own, of_teacher = (models[name]["test"]["miou"]["value"] for name in (BAD.name, TEACHER.name))
    assert worse["value"] == pytest.approx(own - of_teacher, abs=2e-6)


def test_the_same_images_give_the_same_bytes(project):
    names = ("scores.json", "intervals.json", "predictions.parquet", "confusion.csv", "masks/boundaries.parquet")
    files = [Path("artifacts/evaluate") / name for name in names]
    before = [file.read_bytes() for file in files]
    tasks.evaluate.run(parameters())
    assert [file.read_bytes() for file in files] == before


def test_the_confusion_for_plots_has_the_shares_of_the_pixels(project):
    rows = pd.read_csv("artifacts/evaluate/confusion.csv")
    counts = np.array(read_json(SCORES)["models"]["teacher"]["test"]["confusion"])
    shares = pd.crosstab(rows["actual"], rows["predicted"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    np.testing.assert_allclose(shares / 1000, counts / counts.sum(axis=1, keepdims=True), atol=1e-3)


def test_a_comparison_names_the_pixels_that_are_newly_wrong(project):
    found = read_json(COMPARISONS)
    assert (found["teacher"], found["headline"], found["test_images"]) == ("teacher", "miou", 10)
    assert found["models"][BAD.name]["verdict"] == "worse"
    truth, of_teacher = masks_of(TEACHER.name)
    flips = pd.read_parquet("artifacts/compare/flips.parquet")
    for name in (SMALL.name, BAD.name):
        predicted = masks_of(name)[1]
        newly_wrong, newly_right = found["models"][name]["newly_wrong"], found["models"][name]["newly_right"]
        lost = (of_teacher == truth) & (predicted != truth)
        assert newly_wrong["pixels"] == lost.sum() == sum(newly_wrong["by_class"].values())
        assert newly_wrong["by_class"]["red"] == (lost & (truth == 2)).sum()
        assert newly_right["pixels"] == ((of_teacher != truth) & (predicted == truth)).sum()
        own = flips[flips["model"] == name]
        assert own["newly_wrong"].sum() == newly_wrong["pixels"]
        worst = [image["lost"] for image in found["models"][name]["worst_images"]]
        assert worst == sorted(worst, reverse=True)
        of_images = own.groupby("index")[["pixels", "newly_wrong", "newly_right"]].sum()
        loss = (of_images["newly_wrong"] - of_images["newly_right"]) / of_images["pixels"]
        assert worst[0] == pytest.approx(loss.max(), abs=1e-6)
    assert (
        read_json(Path("artifacts/compare/differences.json"))[SMALL.name]["miou"]
        == (found["models"][SMALL.name]["difference"])
    )


def test_slices_of_the_images_are_compared_the_worst_first(copied):
    tasks.compare.run(parameters(compare={"min_slice_images": 2}))
    with Path("artifacts/compare/slices.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["model"] == BAD.name]
    changes = [float(row["change"]) for row in rows]
    assert len(rows) >= 4
    assert changes == sorted(changes)
    assert all(int(row["pixels"]) == int(row["images"]) * HEIGHT * (WIDTH - 4) for row in rows)


def test_the_fastest_segmenter_within_the_drop_of_miou_is_chosen(copied):
    choice = read_json(CHOICE)
    assert choice["chosen"] == SMALL.name
    assert choice["validation_miou"] == read_json(SCORES)["models"][SMALL.name]["validation"]["miou"]["value"]
    assert "validation mIoU" in choice["reason"]
    tasks.select.run(parameters(select={"max_accuracy_drop": 0.0}))
    assert read_json(CHOICE)["chosen"] == TEACHER.name


def test_segmenters_are_scored_in_75_corruptions_with_the_masks_as_they_are(project):
    scores = read_json(Path("artifacts/robustness/scores.json"))
    assert (scores["images"], scores["test_images"], scores["teacher"]) == (4, 10, "teacher")
    for name, of_model in scores["models"].items():
        table = np.array([of_model["kinds"][kind] for kind in KINDS])
        assert table.shape == (15, 5)
        assert of_model["mean_corruption_miou"]["value"] == pytest.approx(table.mean(), abs=1e-5)
        assert name != "teacher" or of_model["difference_to_teacher"] == {"value": 0, "low": 0, "high": 0}
    teacher = scores["models"]["teacher"]
    assert teacher["mean_corruption_miou"]["value"] < teacher["clean_miou"] - 0.1
    answers = pd.read_parquet("artifacts/robustness/answers.parquet")
    assert len(answers) == 3 * 4
    assert (answers["corrupted"] <= 75 * answers["pixels"]).all()
    # Clean pixels are those that evaluate counted.
    kept = pd.read_parquet("artifacts/evaluate/predictions.parquet")
    right = kept[kept["truth"] == kept["predicted"]].groupby(["model", "index"])["pixels"].sum()
    assert [right[model, index] for model, index in zip(answers["model"], answers["index"], strict=True)] == (
        answers["clean"].tolist()
    )


def test_the_gate_accepts_a_segmenter_that_stays_within_its_policy(project):
    verdict = read_json(VERDICT)
    assert verdict["verdict"] == "accepted"
    for name in ("mIoU", "every class", "class losses", "golden answers"):
        assert outcomes(verdict)[name] == "passed"
    scores = read_json(SCORES)["models"]
    assert verdict["miou"]["challenger"] == scores[SMALL.name]["test"]["miou"]
    assert verdict["miou"]["reference"] == scores[TEACHER.name]["test"]["miou"]
    assert re.search(r"Its mIoU is [\d.]+ %.* on 10 test images, that of the teacher [\d.]+ %", verdict["paragraph"])


@pytest.mark.parametrize(
    ("policy", "failed", "said"),
    [
        ({"max_accuracy_drop": 0.0}, "mIoU", "Not established|Shown to be more"),
        ({"min_class_accuracy": 0.99}, "every class", "Below the floor.* has an IoU of"),
        ({"size_mb": 0.1}, "size", "above the limit"),
    ],
)
def test_the_gate_refuses_with_the_reason(copied, policy, failed, said):
    tasks.gate.run(parameters(gate={**LENIENT, **policy}))
    verdict = read_json(VERDICT)
    assert (verdict["verdict"], outcomes(verdict)[failed]) == ("refused", "failed")
    assert re.search(said, verdict["paragraph"])


def test_a_champion_takes_the_teachers_place_whatever_the_order_of_its_classes(copied, monkeypatch):
    shutil.rmtree("artifacts/finetune/teacher")
    other = [CLASSES[0], CLASSES[2], CLASSES[1]]
    write_segmenter(copied, TEACHER, other)
    write_bundle(copied, TEACHER, Path("champion"))
    # What `benchmark` measures of two bundles is tested there.
    speed = Interval(1.0, 0.9, 1.1)
    monkeypatch.setattr(tasks.image_gate, "side_by_side", lambda *_: (speed, speed))
    tasks.gate.run(parameters(gate=LENIENT))
    verdict = read_json(VERDICT)
    assert verdict["reference"] == "champion"
    # It calls red what is green: two classes are lost, and the ground stays.
    assert verdict["miou"]["reference"]["value"] < 0.4
    assert "replace the champion" in verdict["paragraph"]


def test_a_bundle_that_answers_otherwise_is_refused(copied):
    from kinglet.runtime import bundles

    with np.load(BUNDLE / bundles.GOLDEN) as kept:
        golden = dict(kept)
    golden[bundles.EXACT_MASKS] = (golden[bundles.EXACT_MASKS] + 1) % 3
    (BUNDLE / bundles.GOLDEN).write_bytes(bundles.npz_bytes(golden))
    bundles.seal(BUNDLE)
    tasks.gate.run(parameters(gate=LENIENT))
    verdict = read_json(VERDICT)
    assert outcomes(verdict)["golden answers"] == "failed"
    assert "of the pixels are of another class" in verdict["paragraph"]


def test_masks_are_not_searched_for_wrong_labels_and_that_is_said(copied):
    corrections = {"label_corrections": "corrections.csv"}
    Path("corrections.csv").write_text(",".join(COLUMNS) + "\n")
    tasks.label_errors.run(parameters(data=corrections))
    counts = read_json(Path("artifacts/label_errors/counts.json"))
    assert (counts["n"], counts["suspicious"]) == (0, 0)
    assert "not looked for in masks" in counts["note"]
    assert len(Path("artifacts/label_errors/suspicious.csv").read_text().splitlines()) == 1


def test_the_page_is_well_formed_and_loads_nothing(project):
    page, tags = REPORT.read_text(), Tags()
    tags.feed(page)
    assert tags.open == []
    chapters = ["verdict", "gate", "models", "tradeoff", "comparisons", "flips", "classes", "cross-validation"]
    assert [name for name in [*chapters, "robustness", "masks", "data", "settings"] if name not in tags.ids] == []
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?://", page)
    assert not re.search(r'href="(?!#|data:)', page)


def test_the_page_says_what_an_unseen_domain_costs_in_its_own_score(project):
    page = REPORT.read_text()
    chapter = page[page.index('<section id="domains">') :]
    chapter = chapter[: chapter.index("</section>")]
    assert "the recipe reaches an mIoU of 60.0 % on the test images, on one that it never saw of 60.0 %" in chapter
    assert "<br>mIoU, %" in chapter
    assert '<a href="#domains">' in page
    assert not re.search("accuracy|right about|image by image", chapter)


def test_the_page_shows_every_score_with_its_interval(project):
    page, small = REPORT.read_text(), read_json(SCORES)["models"][SMALL.name]
    for score in ("miou", "dice", "pixel_accuracy", "boundary_f1"):
        value, low, high = (f"{100 * small['test'][score][end]:.2f}" for end in ("value", "low", "high"))
        assert f"{value}<small>{low}–{high}</small>" in page  # noqa: RUF001
    assert f'<h1 id="verdict">{SMALL.name} is 2.7 times as fast as the teacher' in page
    assert f"{read_json(COMPARISONS)['models'][SMALL.name]['newly_wrong']['pixels']:,}<small>" in page
    assert "<h3>Pixels by class and split</h3>" in page


def test_pictures_show_truth_both_models_and_what_is_wrong_the_worst_first(project):
    page = REPORT.read_text()
    chapter = page[page.index('<section id="masks"') : page.index('<section id="data"')]
    assert chapter.count("data:image/jpeg;base64,") == 4
    assert chapter.count("data:image/png;base64,") == 4 * 4
    # The letterbox is 43 pixels high without its borders.
    assert 'viewBox="0 0 64 43"' in chapter
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", chapter)
    assert captions == ["image", "truth", TEACHER.name, SMALL.name, f"wrong in {SMALL.name}"] * 4
    wrong = [float(share) for share in re.findall(rf"{SMALL.name} has ([\d.]+) % of its labelled", chapter)]
    assert len(wrong) == 4
    assert wrong == sorted(wrong, reverse=True)


def test_a_student_is_held_against_its_control_on_the_page(copied):
    control = Recipe("student-untaught", "distill", "", 0.42, 0, 1.0)
    folder = write_segmenter(copied, control)
    assert_a_control_is_on_the_page(folder, BAD.name, latency_of(copied, control), parameters(), "miou")


def test_the_teacher_alone_has_a_page(copied):
    for recipe in (SMALL, BAD):
        shutil.rmtree(f"artifacts/{recipe.step}")
    latency = read_json(Path("artifacts/benchmark/latency.json"))
    models = {TEACHER.name: latency["models"][TEACHER.name]}
    write_json(Path("artifacts/benchmark/latency.json"), {**latency, "models": models})
    write_json(Path("artifacts/pool_folds/scores.json"), {"folds": 0, "repeats": 1})
    for step in (tasks.evaluate, tasks.compare, tasks.select, tasks.robustness):
        step.run(parameters())
    write_bundle(copied, TEACHER, BUNDLE)
    tasks.gate.run(parameters(gate=LENIENT))
    tasks.report.run(parameters(report={"sample_errors": 0}))
    page = REPORT.read_text()
    assert "Nothing smaller fits the budget" in page
    assert 'id="comparisons"' not in page
    assert 'id="cross-validation"' not in page
    assert "No pictures were asked for." in page


def test_a_segmenter_of_other_classes_is_refused(copied):
    shutil.rmtree(f"artifacts/{SMALL.step}")
    write_segmenter(copied, SMALL, ["ground", "blue", "red"])
    with pytest.raises(KingletError, match="other classes"):
        tasks.evaluate.run(parameters())


def test_a_mask_of_another_size_than_its_image_is_refused_with_both(copied):
    row = rows_of()[0]
    Image.new("L", (WIDTH, HEIGHT - 1)).save(mask_file(row))
    with pytest.raises(KingletError, match=rf"{row}.png has 96 x 63 pixels, and its image .* has 96 x 64"):
        tasks.evaluate.run(parameters())


def test_a_missing_mask_and_one_in_colour_are_refused_by_name(copied):
    row = rows_of()[0]
    Image.new("RGB", (WIDTH, HEIGHT)).save(mask_file(row))
    with pytest.raises(KingletError, match=rf"{row}.png is no mask: its pixels are of the mode RGB"):
        tasks.evaluate.run(parameters())
    mask_file(row).unlink()
    with pytest.raises(KingletError, match=rf"{row}.png cannot be read"):
        tasks.evaluate.run(parameters())


def test_a_split_without_labelled_pixels_is_refused_and_what_was_there_stays(copied):
    for row in rows_of():
        Image.new("L", (WIDTH, HEIGHT), VOID).save(mask_file(row))
    before = SCORES.read_bytes()
    with pytest.raises(KingletError, match="None of the 10 test images has a pixel with a class"):
        tasks.evaluate.run(parameters())
    assert SCORES.read_bytes() == before
    assert Path(f"artifacts/evaluate/masks/{SMALL.name}").is_dir()


def test_predictions_on_other_images_are_refused(copied):
    split = pd.read_parquet("artifacts/split/manifest.parquet")
    split["split"] = split["split"].replace({"test": "validation", "validation": "test"})
    split.to_parquet("artifacts/split/manifest.parquet")
    with pytest.raises(KingletError, match="other test images"):
        tasks.compare.run(parameters())
