"""Networks over clips scored, compared, chosen and judged, in a project of small files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tasks.bundle
import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.report
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json
from kinglet.errors import KingletError
from kinglet.evidence.gate import CHAMPION_ROBUSTNESS
from kinglet.runtime import bundles
from kinglet.runtime.clips import ClipPredictor
from kinglet.runtime.histograms import bin_counts
from kinglet.runtime.sketches import input_statistics, read_reference
from kinglet.runtime.watched_answers import SHARED_WEIGHT
from tasks.artifacts import (
    BUNDLE,
    CLIPS,
    COMPARE,
    EVALUATE,
    QUANTIZE,
    ROBUSTNESS,
    SELECT,
    SPLIT,
    packed_clips,
    read_card,
)
from tasks.champion import replace_champion
from tasks.chapters.strips import GAP, Strips
from tasks.clip_bundle import pack_clip_network
from tasks.corrupted_answers import every_way
from tasks.monitoring_reference import monitoring_reference
from tasks.report_page import png_uri
from tests.unit.models.clip_files import CLASSES, FRAMES, SIZE
from tests.unit.tasks.clip_project import RATE, SMALL, TEACHER, build_clip_project, parameters


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder of a project after `evaluate`, `compare` and `select`."""
    root = tmp_path_factory.mktemp("clips")
    build_clip_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for task in (tasks.evaluate, tasks.compare, tasks.select):
            task.run(parameters())
    return root


def test_scores_have_the_layout_of_classifiers_and_what_is_known_early(scored):
    scores = read_json(scored / EVALUATE / "scores.json")
    assert set(scores) == {"classes", "teacher", "models"}
    test = scores["models"]["teacher"]["test"]
    assert test["n"] == 24
    assert 0.8 < test["accuracy"]["value"] < 1
    early = scores["models"]["teacher"]["early"]
    assert [(item["share"], item["frames"]) for item in early] == [(0.25, 2), (0.5, 3), (0.75, 4), (1.0, FRAMES)]
    assert early[-1]["accuracy"] == test["accuracy"]
    assert early[0]["accuracy"]["value"] < early[-1]["accuracy"]["value"]
    table = pd.read_parquet(scored / EVALUATE / "predictions.parquet")
    assert table.groupby(["model", "split"]).size().to_dict() == {
        (model, split): 24 for model in ("teacher", "teacher-int8") for split in ("test", "validation")
    }


def test_clips_are_scored_in_each_domain_and_compared_there(scored):
    of_model = read_json(scored / EVALUATE / "scores.json")["models"]["teacher"]
    domains = pd.read_parquet(scored / SPLIT / "manifest.parquet").set_index("index")["domain"]
    table = pd.read_parquet(scored / EVALUATE / "predictions.parquet")
    own = table[(table["model"] == "teacher") & (table["split"] == "test")]
    right = (own["label"] == own["predicted"]).groupby(own["index"].map(domains))
    assert {name: (found["n"], found["accuracy"]["value"]) for name, found in of_model["by_domain"].items()} == {
        name: (count, pytest.approx(right.mean()[name], abs=1e-6)) for name, count in right.size().items()
    }
    assert right.ngroups == 2
    slices = pd.read_csv(scored / COMPARE / "slices.csv")
    assert set(slices.loc[slices["column"] == "domain", "value"]) == {"hall", "yard"}


def test_what_is_scored_is_what_a_stream_answers(scored, tmp_path):
    packed = np.load(scored / packed_clips(SIZE))
    table = pd.read_parquet(scored / EVALUATE / "predictions.parquet")
    for recipe in (TEACHER, SMALL):
        folder = scored / "artifacts" / recipe.step / recipe.name
        clips = packed[:3]
        pack_clip_network(tmp_path / "bundle", folder, clips, np.arange(3), RATE, "# card\n")
        own = table[(table["model"] == recipe.name) & (table["split"] == "test")]
        found = ClipPredictor(tmp_path / "bundle", threads=1, saturates=False).predict(packed[own["index"]])
        np.testing.assert_allclose(found.probabilities, np.stack(own["probabilities"]), atol=0.02)
        assert [CLASSES[label] for label in own["predicted"]] == found.classes


def test_an_int8_model_is_scored_without_vnni_as_well(scored):
    models = read_json(scored / EVALUATE / "scores.json")["models"]
    assert "without_vnni" not in models["teacher"]
    emulated = models["teacher-int8"]["without_vnni"]
    assert (emulated["file"], emulated["n"]) == ("model.onnx", 24)
    # No weight of this frame part is large enough for two products to exceed 16 bits by much.
    assert abs(emulated["accuracy"]["value"] - models["teacher-int8"]["test"]["accuracy"]["value"]) < 0.1


def test_a_model_is_compared_with_the_teacher_clip_by_clip(scored):
    found = read_json(scored / COMPARE / "comparisons.json")
    own = found["models"]["teacher-int8"]
    assert own["negative_flips"] > 0
    assert own["difference"]["value"] < 0
    flips = pd.read_parquet(scored / COMPARE / "flips.parquet")
    assert len(flips) == own["negative_flips"] + own["positive_flips"]


def test_the_fastest_within_the_budget_is_chosen_by_accuracy(scored):
    choice = read_json(scored / SELECT / "choice.json")
    assert choice["chosen"] == "teacher-int8"
    assert choice["model"] == "artifacts/quantize/teacher-int8/model.onnx"


def test_a_model_without_its_recurrent_part_is_told(tmp_path, monkeypatch):
    build_clip_project(tmp_path, n=18, recipes=(TEACHER,))
    (tmp_path / "artifacts/finetune/teacher/recurrent.onnx").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KingletError, match=r"recurrent\.onnx does not exist"):
        tasks.evaluate.run(parameters())


@pytest.fixture(scope="module")
def judged(scored):
    """The same folder after `robustness`, `bundle` and `gate`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(scored)
        for task in (tasks.robustness, tasks.bundle, tasks.gate):
            task.run(parameters())
    return scored


def test_the_reference_counts_middle_frames_and_each_video_once(judged, tmp_path, monkeypatch):
    reference = read_reference(judged / BUNDLE / bundles.REFERENCE)
    assert reference.problem == "video"
    test = read_json(judged / EVALUATE / "scores.json")["models"]["teacher-int8"]["test"]
    assert reference.n_right / reference.n_test == pytest.approx(test["accuracy"]["value"], abs=1e-6)
    middle = np.load(judged / packed_clips(SIZE))[:, FRAMES // 2]
    split = pd.read_parquet(judged / SPLIT / "manifest.parquet")["split"]
    brightness = np.round(input_statistics(middle[split == "train"])["brightness"], 7)
    histogram = reference.columns["brightness"]
    np.testing.assert_array_equal(histogram.counts, SHARED_WEIGHT * bin_counts(brightness, histogram.edges))
    # Of one video, all clips together weigh as much as the one clip of another.
    shutil.copytree(judged, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    clips = pd.read_parquet(CLIPS)
    clips.assign(video=clips["video"].where(clips["index"] > 8, "long.mp4")).to_parquet(CLIPS)
    of_videos = monitoring_reference(Path(read_json(SELECT / "choice.json")["model"]), read_card(QUANTIZE / SMALL.name))
    n_in_long = int((split[:9] == "train").sum())
    total = of_videos.columns["brightness"].counts.sum() / SHARED_WEIGHT
    assert total == pytest.approx((split == "train").sum() - n_in_long + 1, abs=1e-4)


def test_every_frame_of_some_test_clips_is_corrupted(judged):
    scores = read_json(judged / ROBUSTNESS / "scores.json")
    assert (scores["images"], scores["test_images"], scores["image_size"]) == (6, 24, SIZE)
    assert set(scores["models"]) == {"teacher", "teacher-int8"}
    kinds = scores["models"]["teacher"]["kinds"]
    # What darkens or brightens all frames alike hides no motion; noise in every frame does.
    assert np.mean(kinds["brightness"]) > np.mean(kinds["impulse_noise"])
    assert np.load(judged / ROBUSTNESS / "pictures.npy").shape[2:] == (SIZE, SIZE, 3)


def test_frames_of_a_clip_share_their_weather_and_not_their_noise():
    clips = np.full((2, 3, SIZE, SIZE, 3), 90, np.uint8)
    clips[1] += 1
    _, *changed = every_way(clips, ("gaussian_noise", "snow", "fog"), 0)
    noise, snow, fog = changed[0], changed[5], changed[10]
    for weather in (snow, fog):
        assert np.array_equal(weather[0, 0], weather[0, 2])
        assert not np.array_equal(weather[0, 0], weather[1, 0])
    # Frames with the same pixels have the same key: these differ in one.
    clips[0, 1, 0, 0] = 0
    _, noise, *_ = every_way(clips, ("gaussian_noise",), 0)
    assert not np.array_equal(noise[0, 0, 1:], noise[0, 1, 1:])


def test_the_bundle_holds_both_parts_and_says_that_its_videos_are_generated(judged):
    bundle = judged / BUNDLE
    assert set(bundles.verify(bundle)) == {
        *("model.onnx", "recurrent.onnx", "preprocessing.json", "labels.json", "golden.npz", "MODEL_CARD.md"),
        "reference.json",
    }
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "Sorts a clip into one of 3 classes: left, right, still." in card
    assert "The videos are generated" in card
    assert "Made by a test." in card
    assert "ms per frame at the median" in card
    assert f"{FRAMES} frames, 12.5 a second" in card
    predictor = ClipPredictor(bundle, threads=1)
    assert predictor.check_golden(bundle / bundles.GOLDEN) <= bundles.INT8_TOLERANCE
    assert read_json(bundle / "preprocessing.json")["clip"] == {"frames": FRAMES, "frames_per_second": RATE}


def test_the_gate_judges_clips_beside_the_teacher(judged):
    verdict = read_json(judged / "artifacts/gate/verdict.json")
    checks = {check["name"]: check for check in verdict["checks"]}
    assert verdict["images"] == 24
    assert "of 24 generated test clips" in verdict["paragraph"]
    assert checks["golden answers"]["outcome"] == "passed"
    assert "24 test clips" in checks["accuracy"]["reason"]


def test_the_gate_judges_clips_beside_a_champion(judged, monkeypatch):
    monkeypatch.chdir(judged)
    replace_champion(judged / BUNDLE, judged / "champion")
    same = tasks.gate.judge(parameters())
    assert same["reference"] == "champion"
    assert next(check for check in same["checks"] if check["name"] == "accuracy")["reason"] == (
        "The challenger is the champion itself."
    )
    teacher = judged / "artifacts/finetune/teacher"
    packed = np.load(packed_clips(SIZE))[:3]
    pack_clip_network(judged / "other", teacher, packed, np.arange(3), RATE, "# other\n")
    replace_champion(judged / "other", judged / "champion")
    other = {check["name"]: check for check in tasks.gate.judge(parameters())["checks"]}
    assert "below the champion" in other["accuracy"]["reason"]
    assert other[CHAMPION_ROBUSTNESS]["outcome"] != "not judged"
    pack_clip_network(judged / "other", teacher, packed[:, :4], np.arange(3), RATE, "# shorter\n")
    replace_champion(judged / "other", judged / "champion")
    shorter = next(check for check in tasks.gate.judge(parameters())["checks"] if check["name"] == "accuracy")
    assert "its clips have 4 frames, 12.5 a second, and those of this run 6" in shorter["reason"]
    shutil.rmtree(judged / "champion")
    (judged / "champion").mkdir()


@pytest.fixture(scope="module")
def page(judged):
    """The text of the report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(judged)
        tasks.report.run(parameters())
    return (judged / "artifacts/report/report.html").read_text()


def test_the_report_speaks_of_clips_and_says_that_they_are_generated(page):
    assert page.count("The videos are generated") == 2
    assert "24 test clips" in page
    assert "Accuracy on the test clips of every domain" in page
    assert "the same clips without it" in page
    assert "ms per frame" in page
    # These are of the project that this one is made from.
    told = re.sub(r'(?s)<section id="(?:cross-validation|settings|data)".*?</section>', "", page)
    text = re.sub(r"(?s)<style>.*?</style>|<[^>]*>", " ", told)
    assert re.findall(r".{20}\bimages?\b", text) == []


def test_the_report_shows_strips_of_frames_and_early_answers(judged, page):
    assert 'id="early"' in page
    assert "50 %<br>3 of 6" in page
    flips = pd.read_parquet(judged / COMPARE / "flips.parquet")
    row = flips[flips["flip"] == "negative"].sort_values("teacher_confidence").iloc[-1]
    strip = Strips(np.load(judged / packed_clips(SIZE)))[row["index"]]
    assert strip.shape == (SIZE, 5 * SIZE + 4 * GAP, 3)
    assert png_uri(strip) in page


def test_a_strip_begins_with_the_first_frame_and_ends_with_the_last():
    clips = np.arange(2 * 7, dtype=np.uint8).reshape(2, 7, 1, 1, 1) * np.ones((1, 1, 4, 4, 1), np.uint8)
    assert Strips(clips)[1][0, :: 4 + GAP, 0].tolist() == [7, 9, 10, 11, 13]
    assert Strips(clips[:, :2])[0].shape == (4, 2 * 4 + GAP, 1)
