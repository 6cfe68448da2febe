"""A full disk, in real steps on a small file system: one sentence, nothing half-written, and it goes on with space."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml

from kinglet.atomic import atomic_path
from kinglet.training.checkpoints import Checkpoint
from tests.unit.tasks.small_project import build_project, parameters
from tests.unit.tasks.step_process import DATA_STEPS, Workplace, assert_refused, refuse_to_write, write_pets


@dataclass
class SmallDisk:
    """A file system of its own at `root`; where none can be mounted, steps may write 64 bytes a file instead."""

    root: Path
    mounted: bool
    before: Callable[[], None] | None = field(default=None)

    def fill(self) -> None:
        if not self.mounted:
            self.before = refuse_to_write
            return
        with (self.root / "filler").open("wb", buffering=0) as filler:
            for block in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(block)) == block:
                        pass
        assert shutil.disk_usage(self.root).free == 0

    def free(self) -> None:
        self.before = None
        (self.root / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    root = tmp_path / "disk"
    root.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(root)], capture_output=True)
    try:
        yield SmallDisk(root, mounted=mount.returncode == 0)
    finally:
        if mount.returncode == 0:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


def run_on_a_full_disk_and_again(disk: SmallDisk, place: Workplace, step: str) -> None:
    folder = place.root / "artifacts" / step
    before = sorted(folder.rglob("*"))
    disk.fill()
    done = place.step(step, before=disk.before, KINGLET_CACHE=str(place.root / "cache"))
    assert_refused(done, f"No space left while writing artifacts/{step}/")
    assert "hint: Free some space and run again" in done.stderr
    assert place.half_written() == []
    assert [path for path in folder.rglob("*") if path.is_file()] == before
    disk.free()
    again = place.step(step, KINGLET_CACHE=str(place.root / "cache"))
    assert again.returncode == 0, again.stderr
    assert len([path for path in folder.rglob("*") if path.is_file()]) > len(before)


def test_data_steps_say_that_the_disk_is_full_and_go_on_with_space(disk: SmallDisk) -> None:
    place = Workplace(disk.root)
    write_pets(disk.root / "photos")
    (disk.root / "params.yaml").write_text(yaml.safe_dump(place.settings))
    for step in DATA_STEPS:
        run_on_a_full_disk_and_again(disk, place, step)


def test_evidence_steps_say_that_the_disk_is_full_and_go_on_with_space(disk: SmallDisk) -> None:
    place = Workplace(disk.root)
    build_project(disk.root)
    (disk.root / "params.yaml").write_text(yaml.safe_dump(parameters().model_dump(mode="json", exclude_unset=True)))
    for step in ("evaluate", "compare", "robustness", "select", "bundle", "gate", "report"):
        if step == "select":
            # The latencies are kept for all checkouts of a machine, beside the step's own output.
            disk.fill()
            done = place.step("benchmark", before=disk.before, KINGLET_CACHE=str(place.root / "cache"))
            assert_refused(done, "No space left while writing")
            assert place.half_written() == []
            disk.free()
            assert place.step("benchmark", KINGLET_CACHE=str(place.root / "cache")).returncode == 0
        run_on_a_full_disk_and_again(disk, place, step)


def test_training_whose_checkpoint_finds_no_space_says_so_and_goes_on_with_space(disk: SmallDisk) -> None:
    place = Workplace(disk.root)
    write_pets(disk.root / "photos")
    place.set("finetune", head_epochs=0, batch_size=8)
    place.steps(*DATA_STEPS)
    disk.fill()
    done = place.step("finetune", before=disk.before)
    assert_refused(done, "No space left while writing .kinglet/checkpoints/finetune-", "state.pt")
    assert place.half_written() == []
    assert not list(disk.root.glob("artifacts/finetune/*"))
    assert not list(disk.root.rglob("state.pt"))
    disk.free()
    place.steps("finetune")
    assert (disk.root / "artifacts" / "finetune" / "teacher" / "model.json").is_file()


def test_checkpoint_that_finds_no_space_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "training")
    checkpoint.save({"epoch": torch.tensor(1)})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            checkpoint.save({"epoch": torch.tensor(2), "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(checkpoint.path)
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 1
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["state.pt"]


def test_states_are_the_same_bytes_whoever_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"weights": torch.arange(10.0), "history": [{"accuracy": 0.5}]}
    contents = []
    for number in (7, 123_456):
        monkeypatch.setattr("os.getpid", lambda number=number: number)
        checkpoint = Checkpoint(tmp_path / str(number))
        checkpoint.save(state)
        contents.append(checkpoint.path.read_bytes())
    assert contents[0] == contents[1]


def test_error_of_a_write_names_the_file_that_was_meant(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "a.npy") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        write_half()
    assert caught.value.filename == str(tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []
