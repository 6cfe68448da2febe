import pytest
import torch

from kinglet.training.checkpoints import Checkpoint, checkpoint_key


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def test_key_changes_with_facts_and_file_content_and_nothing_else(files, tmp_path):
    key = checkpoint_key({"rate": 0.1, "seed": 1}, files)
    assert key == checkpoint_key({"seed": 1, "rate": 0.1}, files)
    copy = tmp_path / "copy.npy"
    copy.write_bytes(files[0].read_bytes())
    assert key == checkpoint_key({"rate": 0.1, "seed": 1}, [copy, files[1]])
    others = [
        checkpoint_key({"rate": 0.1, "seed": 2}, files),
        checkpoint_key({"rate": 0.1}, files),
        checkpoint_key({"rate": 0.1, "seed": 1}, files[:1]),
        checkpoint_key({"rate": 0.1, "seed": 1}, files[::-1]),
    ]
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 1
    files[1].write_bytes(content)
    others.append(checkpoint_key({"rate": 0.1, "seed": 1}, files))
    assert len({key, *others}) == 6


def test_state_is_loaded_as_it_was_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    assert checkpoint.load() is None
    checkpoint.save({"weights": torch.arange(3.0), "history": [{"loss": 0.5}]})
    checkpoint.save({"weights": torch.arange(4.0), "history": [{"loss": 0.25}]})
    state = Checkpoint(tmp_path / "run").load()
    assert torch.equal(state["weights"], torch.arange(4.0))
    assert state["history"] == [{"loss": 0.25}]
    checkpoint.clear()
    assert checkpoint.load() is None
    assert not (tmp_path / "run").exists()
    checkpoint.clear()  # nothing to forget is no error


class StopsTheWriting:
    """Looks at what is on disk in the middle of a save, then ends it."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.seen = None

    def __reduce__(self):
        self.seen = self.checkpoint.load()
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", [None, {"step": 1}])
def test_half_written_state_is_never_loaded(tmp_path, before):
    checkpoint = Checkpoint(tmp_path / "run")
    if before:
        checkpoint.save(before)
    interruption = StopsTheWriting(checkpoint)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"weights": torch.zeros(1000), "last": interruption})
    assert interruption.seen == before
    assert checkpoint.load() == before


def test_what_a_killed_process_left_is_not_the_state(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run")
    checkpoint.save({"step": 1})
    (tmp_path / "run" / ".state.pt.12345.part").write_bytes(checkpoint.path.read_bytes()[:100])
    assert checkpoint.load() == {"step": 1}
