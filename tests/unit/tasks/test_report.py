import itertools
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import tasks.benchmark
import tasks.bundle
import tasks.chapters.cross_validation
import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.report
import tasks.report_rows
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from kinglet.evidence.non_inferiority import verdict
from tasks.report_rows import between
from tests.unit.tasks.small_project import CHAPTERS, RECIPES, build_project, parameters

REPORT = Path("artifacts/report/report.html")
STEPS = (tasks.evaluate, tasks.compare, tasks.robustness, tasks.benchmark, tasks.select, tasks.bundle, tasks.gate)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        for task in STEPS:
            task.run(parameters())
    return root


@pytest.fixture(scope="module")
def text(built):
    """The report of the project as it was built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built)
        tasks.report.run(parameters())
        return REPORT.read_text()


@pytest.fixture
def page(built, text, monkeypatch):
    """The report's text; the project is the current folder, and what a test changes of it, it changes back."""
    monkeypatch.chdir(built)
    return text


class Tags(HTMLParser):
    """Counts open tags and keeps every address that a browser would load."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loaded = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.loaded += [values["src"]] if "src" in values else []
        self.loaded += [values["href"]] if tag == "link" else []

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def chapter_of(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def test_page_is_well_formed_has_every_chapter_and_loads_nothing(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert [name for name in CHAPTERS if name not in tags.ids] == []
    assert all(address.startswith("data:") for address in tags.loaded)
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_model_and_the_verdict_are_on_the_page(page):
    choice = read_json(Path("artifacts/select/choice.json"))
    assert all(f">{recipe.name}<" in page for recipe in RECIPES)
    assert re.search(rf'<h1 id="verdict">{choice["chosen"]} is [\d.]+ times as fast', page)
    # Models, the way to the chosen one, differences, slices, candidates, confidence and folds: wide and narrow.
    assert len(re.findall(r'<svg class="chart[ "]', page)) == 14


def test_names_of_files_cannot_become_markup(page):
    assert "right/&lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page


def test_mistakes_are_shown_as_pictures(page):
    assert chapter_of(page, "errors").count("data:image/png;base64,") == 6
    tasks.report.run(parameters(report={"sample_errors": 0}))
    assert "data:image/png" not in chapter_of(REPORT.read_text(), "errors")


def test_the_same_inputs_give_the_same_bytes(page):
    tasks.report.run(parameters())
    assert REPORT.read_text() == page


def test_paths_of_this_machine_stay_out(page, built):
    assert str(built) not in page
    assert os.uname().nodename not in page or len(os.uname().nodename) < 4


def test_the_teacher_itself_may_be_the_choice(page, built):
    original = read_json(Path("artifacts/select/choice.json"))
    onnx = "artifacts/finetune/teacher/model.onnx"
    write_json(Path("artifacts/select/choice.json"), {**original, "chosen": "teacher", "onnx": onnx})
    tasks.report.run(parameters())
    assert "Nothing smaller fits the budget" in REPORT.read_text()
    write_json(Path("artifacts/select/choice.json"), original)


@pytest.mark.parametrize(
    ("only_small", "only_big", "interval", "said", "claim"),
    [
        (1, 5, (-0.004, -0.008, -0.001), "0.40 points less accurate", "Established on 1,000"),
        (
            28,
            32,
            (-0.004, -0.014, 0.006),
            "0.40 points less accurate, which 1,000 test images do not settle",
            "it would take",
        ),
        (30, 30, (0.0, -0.015, 0.015), " as accurate, which 1,000 test images do not settle", "would take"),
        (12, 8, (0.004, -0.002, 0.01), "not measurably less accurate", "Established"),
        (20, 10, (0.01, 0.002, 0.02), "1.00 points more accurate", "more accurate than the teacher"),
        (5, 35, (-0.03, -0.04, -0.02), "3.00 points less accurate", "beyond the 1 point that"),
        (5, 20, (-0.015, -0.025, -0.005), "1.50 points less accurate", "beyond the 1 point that"),
    ],
)
def test_the_verdict_claims_no_more_than_the_images_show(only_small, only_big, interval, said, claim):
    small, big = np.ones(1000, bool), np.ones(1000, bool)
    big[:only_small] = False
    small[only_small : only_small + only_big] = False
    measured = dict(zip(("value", "low", "high"), interval, strict=True))
    scores = {"small": {"test": {"n": 1000}, "difference_to_teacher": {"test": measured}}}
    rows = {"small": {"speedup": 6.0, "shrink": 20.0}}
    judged = verdict(small, big, 0.01)
    found = tasks.report_rows.verdict(rows, "big", "small", scores, judged)
    assert said in found["headline"]
    assert claim in found["claim"]
    if judged.images_needed and "would take" in claim:
        assert f"{judged.images_needed:,}" in found["claim"]


def test_everything_the_search_tried_is_told_with_the_survivor_first(page):
    section = chapter_of(page, "search")
    order = [
        section.index(words) for words in ("8-16 channels", "dropped after rung 1 of 2", "over the budget of 0.5 ms")
    ]
    assert order == sorted(order)
    assert "student-1" in section
    assert "0.052, int8" in section
    assert section.count("<svg") == 2  # for a wide and for a narrow page


def test_a_run_without_a_search_has_no_chapter_on_it(built, monkeypatch):
    monkeypatch.chdir(built)
    trials = Path("artifacts/search/trials.csv")
    whole = trials.read_text()
    trials.write_text(whole.splitlines()[0].replace("\\", "") + "\n")
    try:
        tasks.report.run(parameters())
    finally:
        trials.write_text(whole)
    assert 'id="search"' not in REPORT.read_text()


def test_every_other_model_has_a_verdict_and_the_chosen_ones_scores_stand_beside_the_teachers(page):
    chapter, choice = chapter_of(page, "comparisons"), read_json(Path("artifacts/select/choice.json"))
    found = read_json(Path("artifacts/compare/comparisons.json"))["models"]
    for name, row in found.items():
        line = re.search(rf'<td class="name">{name}<.*?</tr>', chapter, re.DOTALL)[0]
        assert f">{row['verdict']}<" in line
        if row["images_needed"]:
            assert f"{row['images_needed']:,}" in line
    scores = read_json(Path("artifacts/evaluate/intervals.json"))["models"][choice["chosen"]]
    assert f"{scores['ece']['value']:.4f}" in chapter
    assert f"{between(scores['recall_macro'])}" in chapter
    assert "expected calibration error" in chapter
    assert "with 40 test images" in chapter


def test_what_is_newly_wrong_is_counted_and_shown_as_pictures(page):
    chapter, choice = chapter_of(page, "flips"), read_json(Path("artifacts/select/choice.json"))
    flips = pyarrow.parquet.read_table("artifacts/compare/flips.parquet").to_pandas()
    own = flips[(flips.model == choice["chosen"]) & (flips.flip == "negative")]
    assert chapter.count("<img") == min(6, len(own))
    paths = re.findall(r'title="(.*?)"', chapter)
    assert paths == list(own.sort_values(["teacher_confidence", "index"], ascending=[False, True]).path[:6])
    for model, of_model in flips.groupby("model"):
        line = re.search(rf'<td class="name">{model}<.*?</tr>', chapter, re.DOTALL)[0]
        assert f">{(of_model.flip == 'negative').sum()}<" in line


def test_the_worst_slice_is_named(page):
    chapter, choice = chapter_of(page, "slices"), read_json(Path("artifacts/select/choice.json"))
    worst = read_json(Path("artifacts/compare/comparisons.json"))["models"][choice["chosen"]]["worst_slice"]
    assert worst["change"] < 0
    assert f"loses most on <b>{worst['column']} {worst['value']}</b>" in chapter
    assert "corrected for" in chapter
    assert "after Holm" in chapter


def test_nothing_is_compared_where_there_is_only_the_teacher(page):
    whole = {name: Path(f"artifacts/compare/{name}").read_text() for name in ("comparisons.json", "slices.csv")}
    found = read_json(Path("artifacts/compare/comparisons.json"))
    original = read_json(Path("artifacts/select/choice.json"))
    write_json(Path("artifacts/compare/comparisons.json"), {**found, "models": {}})
    write_json(Path("artifacts/select/choice.json"), {**original, "chosen": "teacher"})
    try:
        tasks.report.run(parameters())
        found = REPORT.read_text()
        assert not re.search(r'(id="|#)(comparisons|flips|slices)"', found)
    finally:
        write_json(Path("artifacts/select/choice.json"), original)
        for name, text in whole.items():
            Path(f"artifacts/compare/{name}").write_text(text)


def test_the_waterfall_goes_from_the_teacher_to_the_chosen_model_step_by_step(page):
    section = page[page.index('<section id="waterfall"') : page.index('<section id="steps"')]
    scores = read_json(Path("artifacts/evaluate/scores.json"))["models"]
    way = [read_json(Path("artifacts/select/choice.json"))["chosen"]]
    while scores[way[0]]["parent"]:
        way.insert(0, scores[way[0]]["parent"])
    assert way[0] == "teacher"
    assert len(way) > 1
    assert re.findall(r'<td class="name">([\w-]+)<small>', section) == way
    accuracies = [scores[name]["test"]["accuracy"]["value"] for name in way]
    for before, after in itertools.pairwise(accuracies):
        assert f">{tasks.report_rows.signed(after - before)}<" in section
    corrupted = read_json(Path("artifacts/robustness/scores.json"))["models"]
    assert all(
        f">{tasks.report_rows.percent(corrupted[name]['mean_corruption_accuracy']['value'])}<" in section
        for name in way
    )


def test_the_verdict_is_told_with_its_reasons_and_what_failed_comes_first(page):
    section = page[page.index('<section id="gate"') : page.index('<section id="models"')]
    verdict = read_json(Path("artifacts/gate/verdict.json"))
    assert verdict["verdict"] in section
    outcomes = re.findall(r'<span class="severity (?:passed|critical|unjudged)">([a-z ]+)</span>', section)
    assert len(outcomes) == len(verdict["checks"])
    assert outcomes == sorted(outcomes, key=["failed", "passed", "not judged"].index)
    assert "failed" in outcomes  # the data of the small project have a critical finding


def test_a_page_without_a_verdict_has_no_chapter_on_it(page):
    verdict = Path("artifacts/gate/verdict.json")
    content = verdict.read_text()
    verdict.unlink()
    try:
        tasks.report.run(parameters())
    finally:
        verdict.write_text(content)
    assert 'id="gate"' not in REPORT.read_text()


def test_cuts_that_were_refused_and_pruned_models_without_a_rival_are_told(built, monkeypatch):
    monkeypatch.chdir(built)
    write_json(Path("artifacts/prune/refused.json"), {"student": "Without 9% of its channels no faster."})
    write_json(Path("artifacts/prune/unrivalled.json"), {"teacher": "There are no smaller images for a rival."})
    tasks.report.run(parameters())
    page = REPORT.read_text()
    for name in ("refused", "unrivalled"):
        write_json(Path(f"artifacts/prune/{name}.json"), {})
    assert "Without 9% of its channels no faster. It was not pruned." in page
    assert "There are no smaller images for a rival. So nothing here says whether pruning was worth it." in page
    tasks.report.run(parameters())
    assert "rival" not in REPORT.read_text()


def test_short_folds_far_below_the_teacher_are_said_to_be_so(page):
    section = page[page.index('<section id="cross-validation"') : page.index('<section id="label-errors"')]
    gap = 100 * (
        read_json(Path("artifacts/evaluate/scores.json"))["models"]["teacher"]["test"]["accuracy"]["value"] - 0.6
    )
    assert (f"for 0.2 epochs only and lie {gap:.1f} points below the teacher" in section) == (gap > 2)
    assert "0.2 epochs long" in section
    assert "is in 1 of 2 folds only." in section
    assert tasks.chapters.cross_validation.remark(0.019, 0.2) == ""
    assert "lie 2.1 points below" in tasks.chapters.cross_validation.remark(0.021, 0.2)


def test_suspicious_labels_are_shown_with_what_they_probably_are(page):
    section = page[page.index('<section id="label-errors"') : page.index('<section id="errors"')]
    assert "2 of 120 images are suspicious" in section
    assert re.search(r"labelled <b>bottom</b>, 1&nbsp;%<br>probably <span class=.said.>left</span>, 97&nbsp;%", section)
    assert "1 more were looked at before and kept" in section


def test_a_run_without_folds_has_no_chapter_on_them(built, monkeypatch):
    monkeypatch.chdir(built)
    files = {Path("artifacts/pool_folds/scores.json"): "folds", Path("artifacts/label_errors/counts.json"): "n"}
    whole = {path: read_json(path) for path in files}
    for path, key in files.items():
        write_json(path, {**whole[path], key: 0})
    try:
        tasks.report.run(parameters())
    finally:
        for path, content in whole.items():
            write_json(path, content)
    assert 'id="cross-validation"' not in REPORT.read_text()
    assert 'id="label-errors"' not in REPORT.read_text()


def test_domains_and_adaptation_are_shown_with_what_was_won_back_and_what_was_not_judged(page):
    assert "60 % (40" in page
    assert "student is right on 60.0 %" in page
    assert "says nothing about a real camera" in page
    assert "lab suffers most" in page
    assert "attic was not left out: 3 test images, domains.min_test_images is 20." in page
    assert "&lt;top&gt;" in page


def test_a_target_domain_s_parts_have_columns_of_their_own(built, monkeypatch):
    monkeypatch.chdir(built)
    counts = read_json(Path("artifacts/split/counts.json"))
    for part in ("adaptation", "target_test"):
        counts[part] = dict.fromkeys(counts["test"], 7)
    monkeypatch.setattr(
        tasks.report, "read_json", lambda path: counts if path.name == "counts.json" else read_json(path)
    )
    tasks.report.run(parameters())
    assert '<th class="n">adaptation</th><th class="n">target test</th>' in REPORT.read_text()
