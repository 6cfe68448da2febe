from pathlib import Path

import pytest

import tasks.plan
from kinglet.atomic import read_json, write_json
from kinglet.errors import KingletError
from kinglet.evidence.power import images_for_margin, provable_margin
from tests.unit.tasks.small_project import parameters


def plan_for(tmp_path, monkeypatch, counts, **changes):
    monkeypatch.chdir(tmp_path)
    write_json(Path("artifacts/split/counts.json"), {"train": {"a": 9}, "test": counts})
    tasks.plan.run(parameters(**changes))
    return read_json(Path("artifacts/plan/plan.json"))


def test_enough_images_are_no_cause_for_a_word(tmp_path, monkeypatch, capsys):
    plan = plan_for(tmp_path, monkeypatch, {"a": 6000, "b": 4000}, select={"max_accuracy_drop": 0.01})
    assert plan["test_images"] == 10_000
    assert plan["provable_margin"] == pytest.approx(provable_margin(10_000, 0.05), abs=1e-6)
    assert plan["is_enough"]
    assert plan["chance"] > 0.99
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("n", [20, 400])
def test_too_few_images_are_told_in_one_sentence(tmp_path, monkeypatch, capsys, n):
    plan = plan_for(tmp_path, monkeypatch, {"a": n}, select={"max_accuracy_drop": 0.01}, plan={"disagreement": 0.04})
    assert not plan["is_enough"]
    assert plan["images_needed"] == images_for_margin(0.01, 0.04)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {n} test images can prove")
    assert said.count("\n") == 1
    assert "select.max_accuracy_drop" in said
    assert f"{plan['images_needed']:,}" in said


def test_no_drop_at_all_is_never_proved(tmp_path, monkeypatch, capsys):
    plan = plan_for(tmp_path, monkeypatch, {"a": 100_000}, select={"max_accuracy_drop": 0.0})
    assert (plan["images_needed"], plan["is_enough"]) == (None, False)
    assert "widen it" in capsys.readouterr().err


def test_the_expected_disagreement_is_among_those_reckoned(tmp_path, monkeypatch):
    plan = plan_for(tmp_path, monkeypatch, {"a": 1000}, plan={"disagreement": 0.03, "power": 0.9})
    by_share = {row["disagreement"]: row["provable_margin"] for row in plan["by_disagreement"]}
    assert list(by_share) == sorted(by_share)
    assert by_share[0.03] == plan["provable_margin"]
    assert plan["provable_margin"] > provable_margin(1000, 0.03)


def test_an_empty_test_split_is_said(tmp_path, monkeypatch):
    with pytest.raises(KingletError, match="no images"):
        plan_for(tmp_path, monkeypatch, {})
    assert not Path("artifacts/plan").exists()


def test_the_documentation_shows_the_sentence_as_it_is():
    text = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert f"warning: {tasks.plan.warning(tasks.plan.plan_of(339, 0.01, 0.05, 0.95, 0.8))}\n" in text
