"""Every step whose work differs by problem knows all problems: none ends in the middle of a run."""

import importlib

import pytest

PROBLEMS = {"classification", "detection", "segmentation", "video"}


@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("answer", "KEEPING"),
        ("bundle", "PACKERS"),
        ("check_data", "JUDGES"),
        ("compare", "COMPARING"),
        ("distill", "TRAININGS"),
        ("domains", "SHOWS"),
        ("evaluate", "SCORING"),
        ("finetune", "TRAININGS"),
        ("gate", "JUDGES"),
        ("leave_one_domain_out", "PROBLEMS"),
        ("monitoring_reference", "REFERENCES"),
        ("plan", "PLANS"),
        ("profile", "LABEL_FACTS"),
        ("quantize", "JUDGED"),
        ("report", "PAGES"),
        ("robustness", "SCORING"),
        ("split", "CLASSES_OF"),
    ],
)
def test_a_step_knows_every_problem_that_has_networks(module: str, table: str) -> None:
    assert set(getattr(importlib.import_module(f"tasks.{module}"), table)) == PROBLEMS


def test_images_are_read_for_every_problem_that_a_parameter_file_can_name() -> None:
    from tasks.ingest import OPENERS
    from tasks.parameters import Parameters

    assert set(OPENERS) == {*PROBLEMS, "tracking"}
    assert set(Parameters.model_fields["problem"].annotation.__args__) == set(OPENERS)
