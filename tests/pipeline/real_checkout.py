"""Copies of the working tree that run the real pipeline on a few hundred real images with tiny settings."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from kinglet.data.sources import open_source
from kinglet.errors import KingletError
from tests.pipeline.small_project import ROOT

IMAGES_PER_CLASS = 40
# What takes one minute on free processors takes several beside other work.
SECONDS_FOR_A_RUN = 900
# As small as it gets: the question is whether the bytes are the same, not whether they are good.
SETTINGS: dict[str, Any] = {
    "data.source": "images",
    "data.images": "images",
    "split.validation": 0.2,
    "split.test": 0.2,
    "finetune.input_size": 32,
    "finetune.head_epochs": 0.5,
    "finetune.epochs": 1,
    "finetune.low_resolution_share": 0,
    "finetune.batch_size": 32,
    "crossvalidate.folds": [1, 2],
    "crossvalidate.epochs": 0.5,
    "search.survivors": 1,
    "search.families": ["residual"],
    "search.trials": 2,
    "search.rungs": 1,
    "search.effort": 0.005,
    "distill.students": {"residual-32": {"input_size": 28, "stages": [{"width": 32, "stride": 2, "blocks": 2}]}},
    "distill.epochs": 1,
    "distill.batch_size": 32,
    # So much that the cut is faster on a busy machine as well.
    "prune.models": ["residual-32"],
    "prune.channel_share": 0.75,
    "prune.round_to": 8,
    "prune.epochs": 0.5,
    "prune.batch_size": 32,
    "adapt.models": ["residual-32"],
    "adapt.labelled_images": 20,
    "adapt.epochs": 1,
    "quantize.calibration_images": 32,
    "quantize.methods": ["minmax"],
    "quantize.qat_epochs": 0,
    "quantize.max_float_layers": 0,
    "quantize.tolerance": 0.5,
    "robustness.images": 16,
    "benchmark.seconds_per_model": 0.2,
    "benchmark.batch_sizes": [1],
    "select.max_accuracy_drop": 0.99,
    "report.sample_errors": 4,
}


@dataclass(frozen=True)
class Checkout:
    """A copy of the working tree with a few images and tiny settings."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.root / ".venv" / "bin" / command[0]), *command[1:]],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_A_RUN,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    def lock(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "dvc.lock").read_text())

    def models(self) -> dict[str, str]:
        """Return {path: SHA-256} of every model of the run."""
        paths = sorted((self.root / "artifacts").glob("*/*/model.onnx"))
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def set(self, changes: dict[str, Any]) -> None:
        path = self.root / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            section, name = key.split(".")
            content[section][name] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False))


def write_images(folder: Path) -> None:
    """Write the first images of every class of Fashion-MNIST as PNG files, or skip with the reason."""
    description = ROOT / "data" / "fashion-mnist" / "dataset.yaml"
    try:
        source = open_source(str(description), str(description.parent))
    except KingletError as error:
        pytest.skip(f"Fashion-MNIST cannot be reached: {error.message}")
    counts: dict[str, int] = {}
    for record in source.records:
        number = counts.get(record.label, 0)
        if number == IMAGES_PER_CLASS:
            continue
        counts[record.label] = number + 1
        path = folder / record.label.replace("/", "-").replace(" ", "-").lower() / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.read(record)[:, :, 0]).save(path)
        if set(counts.values()) == {IMAGES_PER_CLASS} and len(counts) == 10:
            return


def make_checkout(root: Path, shared: Path, original: Path = ROOT) -> Checkout:
    """Copy what Git would hold of a working tree to `root`; the environment is linked, `shared`/images copied.

    Checkouts that are compared are copies of the first, so that an edit while tests run is in all or in none.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=original,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (
            (original / name).is_file()
            and not name.startswith(("tests/", "docs/", "benchmarks/"))
            and name != "dvc.lock"
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original / name, root / name)
    shutil.copytree(shared / "images", root / "images", dirs_exist_ok=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    link_environment(root / ".venv")
    checkout = open_checkout(root, shared)
    checkout.set(SETTINGS)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Start"]):
        subprocess.run(["git", *command], cwd=root, env=checkout.environment, check=True, capture_output=True)
    return checkout


def open_checkout(root: Path, shared: Path) -> Checkout:
    """Return a checkout that `make_checkout` made, with the environment of its commands."""
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # Latencies are measured once per model and machine; where they are kept is shared, as it is on one machine.
    # The commands are typed by their path, as in a fresh shell: no environment is activated.
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.prefix, "bin"))
    environment = {
        **os.environ,
        **identity,
        "PATH": path,
        "KINGLET_CACHE": str(shared / "cache"),
        "PREFECT_HOME": str(shared / "prefect"),
    }
    environment.pop("PREFECT_API_URL", None)
    return Checkout(root, environment)


def link_environment(venv: Path) -> None:
    """Make `venv` the environment that runs the tests, with the checkout's own `kinglet` command."""
    real = Path(sys.prefix)
    for entry in real.iterdir():
        if entry.name != "bin":
            (venv / entry.name).symlink_to(entry)
    for entry in (real / "bin").iterdir():
        if entry.name != "kinglet":
            (venv / "bin" / entry.name).symlink_to(entry)
    shutil.copy(ROOT / "flows" / "kinglet.sh", venv / "bin" / "kinglet")
    (venv / "bin" / "kinglet").chmod(0o755)


def processes_in(folder: Path) -> list[tuple[int, str]]:
    """Return (process id, command) of all living processes at work in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append((process.pid, " ".join(process.cmdline())))
        except (psutil.Error, OSError):
            continue
    return found
