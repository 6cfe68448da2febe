"""A folder with settings and images in which real steps run as processes, the way DVC starts them."""

from __future__ import annotations

import copy
import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.unit.tasks.prepared_python import PreparedPython

ROOT = Path(__file__).resolve().parents[3]
SETTINGS: dict[str, Any] = {
    "data": {"source": "photos", "images": "photos"},
    "check": {"min_images_per_class": 5, "max_unreadable": 0.4, "max_conflicting": 0.4},
    "finetune": {"backbone": "efficientnet-lite0", "input_size": 32, "epochs": 1},
    "distill": {"students": {"tiny": {"input_size": 16, "stages": [{"width": 8, "stride": 2}]}}, "epochs": 1},
}
SECONDS_FOR_A_STEP = 240
DATA_STEPS = ("ingest", "profile", "check_data", "split")


@cache
def prepared_python() -> PreparedPython:
    """Return the Python that this process's steps are forked from."""
    return PreparedPython()


@dataclass(frozen=True)
class Workplace:
    """A folder that steps run in; `settings` are written to params.yaml before each."""

    root: Path
    settings: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(SETTINGS))

    def step(
        self,
        name: str,
        *,
        before: Callable[[], None] | None = None,
        prefix: tuple[str, ...] = (),
        fresh: bool = False,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m tasks.NAME`. before: a function of this module, called in the child.

        The step is forked from a Python that has its libraries. fresh: it is not, it is an interpreter of its own.
        prefix: a command that starts one.
        """
        params = self.root / "params.yaml"
        if not params.exists():
            params.write_text(yaml.safe_dump(self.settings, allow_unicode=True), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        if not (prefix or fresh):
            calls = [f"{each.__module__}:{each.__name__}" for each in (before,) if each]
            return prepared_python().run(f"tasks.{name}", self.root, environment, SECONDS_FOR_A_STEP, calls)
        return subprocess.run(
            [*prefix, sys.executable, "-m", f"tasks.{name}"],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_A_STEP,
            check=False,
            preexec_fn=before,
        )

    def steps(self, *names: str) -> str:
        """Run steps that must succeed; return what they said."""
        said = ""
        for name in names:
            done = self.step(name)
            assert done.returncode == 0, f"{name}: {done.stderr}"
            said += done.stderr
        return said

    def set(self, section: str, **values: Any) -> None:
        """Change settings for the steps to come."""
        self.settings.setdefault(section, {}).update(values)
        (self.root / "params.yaml").unlink(missing_ok=True)

    def half_written(self) -> list[Path]:
        """Return the temporary files that are left."""
        return sorted(self.root.rglob("*.part"))


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert exit code 2 and one sentence that holds all the words."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert all(word in errors[0] for word in words), errors[0]


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture that depends on the seed only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_pets(folder: Path, n: int = 12) -> None:
    """Write cats and dogs, `n` of each."""
    for number in range(n):
        picture(folder / "cat" / f"{number:03}.png", number)
        picture(folder / "dog" / f"{number:03}.png", 10_000 + number)


def refuse_to_write() -> None:
    """Take nearly all room for files from this process; called in a child, before the step."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def obey_permissions() -> None:
    """Take from this process what lets root read and write everything; called in a fresh child, before the step."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        drop_from_bounding_set = 24
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
                os._exit(77)


def skip_where_permissions_do_not_bind() -> None:
    """Skip the test, with the reason, where root cannot be bound by the permissions of files."""
    if os.geteuid() == 0 and not sys.platform.startswith("linux"):
        pytest.skip("root may read everything, and only Linux can take that from it")
