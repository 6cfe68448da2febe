"""The teacher trained by two processes, as torchrun starts them, and what happens where a device is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.atomic import read_json
from tests.unit.tasks.step_process import DATA_STEPS, Workplace, assert_refused, write_pets


@pytest.fixture
def split_pets(tmp_path: Path) -> Workplace:
    """Cats and dogs up to the split."""
    write_pets(tmp_path / "photos", 20)
    place = Workplace(tmp_path)
    place.set("split", validation=0.2, test=0.2)
    place.steps(*DATA_STEPS)
    return place


def test_two_processes_leave_one_teacher_and_a_missing_gpu_is_one_sentence(split_pets: Workplace) -> None:
    split_pets.set("finetune", devices=["cpu", "cpu"], batch_size=8, head_epochs=0)
    said = split_pets.steps("finetune")
    assert "Traceback" not in said
    card = read_json(split_pets.root / "artifacts" / "finetune" / "teacher" / "model.json")
    assert card["notes"]["history"][0]["epoch"] == 1
    assert (split_pets.root / "artifacts" / "finetune" / "teacher" / "model.onnx").is_file()
    assert split_pets.half_written() == []
    split_pets.set("finetune", devices=["cuda:98", "cuda:99"])
    refused = split_pets.step("finetune")
    assert refused.returncode == 2
    assert "error: finetune.devices names cuda:9" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (["cpu", "cuda:0"], "devices of one kind"),
        (["cuda:0", "cuda:0"], "every GPU once"),
        (["cpu"] * 100, "batch_size is 128: too few images for 100 devices"),
    ],
)
def test_devices_that_cannot_work_together_are_refused(tmp_path: Path, devices: list[str], words: str) -> None:
    place = Workplace(tmp_path)
    place.set("finetune", devices=devices)
    assert_refused(place.step("plan"), "params.yaml", words)
