"""A step whose training is killed when it has kept its first checkpoint, and then run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinglet.training.checkpoints import Checkpoint


def assert_it_goes_on(run: Callable[[], None], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a step whole, then killed after its first checkpoint, then again: it makes the same model of it.

    model: the ONNX file that the step makes, and that is not there in between.
    """
    run()
    whole = model.read_bytes()
    model.unlink()
    save = Checkpoint.save

    def killed(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        save(checkpoint, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    name = f"{model.parent.parent.name}-{model.parent.name}"
    (checkpoint,) = Path(".kinglet/checkpoints").glob(f"{name}-*")
    assert (checkpoint / "state.pt").is_file()
    assert not model.exists()
    run()
    assert model.read_bytes() == whole
    assert not (checkpoint / "state.pt").exists()
