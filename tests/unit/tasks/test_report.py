import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tasks.benchmark
import tasks.chapters.cross_validation
import tasks.evaluate
import tasks.report
import tasks.report_rows
import tasks.select
from kinglet.atomic import read_json, write_json
from tests.unit.tasks.small_project import CHAPTERS, RECIPES, build_project, parameters

REPORT = Path("artifacts/report/report.html")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        for task in (tasks.evaluate, tasks.benchmark, tasks.select):
            task.run(parameters())
    return root


@pytest.fixture
def page(built, monkeypatch):
    monkeypatch.chdir(built)
    tasks.report.run(parameters())
    return REPORT.read_text()


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
    assert page.count('<svg class="chart"') == 6  # models, candidates and folds, for a wide and for a narrow page


def test_names_of_files_cannot_become_markup(page):
    assert "right/&lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page


def test_mistakes_are_shown_as_pictures(page):
    assert page.count("data:image/png;base64,") == 6 + 2  # and two suspicious labels
    tasks.report.run(parameters(report={"sample_errors": 0}))
    assert "data:image/png" not in REPORT.read_text()


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
    ("difference", "said", "claim"),
    [
        ((-0.004, -0.008, -0.001), "0.40 points less accurate", "Established on 1,000"),
        ((-0.004, -0.014, 0.006), "not measurably less accurate", "it would take about 2,778"),
        ((0.004, -0.002, 0.01), "not measurably less accurate", "Established"),
        ((0.01, 0.002, 0.02), "1.00 points more accurate", "more accurate than the teacher"),
        ((-0.03, -0.04, -0.02), "3.00 points less accurate", "beyond the 1 point that"),
    ],
)
def test_the_verdict_claims_no_more_than_the_images_show(difference, said, claim):
    interval = dict(zip(("value", "low", "high"), difference, strict=True))
    scores = {"small": {"test": {"n": 1000}, "difference_to_teacher": {"test": interval}}}
    rows = {"small": {"speedup": 6.0, "shrink": 20.0}}
    verdict = tasks.report_rows.verdict(rows, "big", "small", scores, 0.01)
    assert said in verdict["headline"]
    assert claim in verdict["claim"]


def test_everything_the_search_tried_is_told_with_the_survivor_first(page):
    section = page[page.index('<section id="search"') : page.index('<section id="confusion"')]
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
