"""A run in a few seconds for the scripts of the workflows: what wish.txt says is the verdict, and changes the model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kinglet.runtime import bundles
from tasks.artifacts import BUNDLE
from tests.unit.serving.running_server import build_bundle
from tests.unit.tasks.small_runs import write_run

if __name__ == "__main__":
    wish = Path("wish.txt").read_text()
    with tempfile.TemporaryDirectory() as made:
        shutil.copytree(build_bundle(Path(made)), BUNDLE)
    (BUNDLE / bundles.CARD).write_text(f"# {wish}\n")
    bundles.seal(BUNDLE)
    write_run(wish.split()[0])
