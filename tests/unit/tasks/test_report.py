import itertools
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tasks.benchmark
import tasks.bundle
import tasks.evaluate
import tasks.gate
import tasks.report
import tasks.report_rows
import tasks.robustness
import tasks.select
from kinglet.atomic import read_json, write_json
from tests.unit.tasks.small_project import CHAPTERS, RECIPES, build_project, parameters

REPORT = Path("artifacts/report/report.html")
STEPS = (tasks.evaluate, tasks.robustness, tasks.benchmark, tasks.select, tasks.bundle, tasks.gate)


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
    # Models, the way to the chosen one, candidates and confidence, each for a wide and for a narrow page.
    assert len(re.findall(r'<svg class="chart[ "]', page)) == 8


def test_names_of_files_cannot_become_markup(page):
    assert "right/&lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page


def test_mistakes_are_shown_as_pictures(page):
    def pictures(text):
        return text.split('<section id="errors">')[1].count("data:image/png;base64,")

    assert pictures(page) == 6
    tasks.report.run(parameters(report={"sample_errors": 0}))
    assert pictures(REPORT.read_text()) == 0


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
