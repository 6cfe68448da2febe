"""The real pipeline on a few hundred real images: three ways through it, one result.

By `dvc repro`, by the flow, and by a flow that was killed while it trained and started again; each in a
copy of the working tree with a DVC cache of its own, so that nothing is handed from one to the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from kinglet.data.sources import open_source
from kinglet.errors import KingletError
from tests.pipeline.small_project import ROOT, wait_until

pytestmark = pytest.mark.timeout(300)

IMAGES_PER_CLASS = 40
SECONDS_FOR_A_RUN = 240
# As small as it gets: the question is whether the bytes are the same, not whether they are good.
SETTINGS: dict[str, Any] = {
    "data.source": "images",
    "data.images": "images",
    "split.validation": 0.2,
    "split.test": 0.2,
    "finetune.input_size": 32,
    "finetune.head_epochs": 0.5,
    "finetune.phases": [{"epochs": 1, "input_size": 32}],
    "finetune.batch_size": 32,
    "distill.students": {"residual-8": {"input_size": 28, "stages": [{"width": 8, "stride": 2, "blocks": 1}]}},
    "distill.epochs": 1,
    "distill.batch_size": 32,
    "prune.models": ["residual-8"],
    "prune.epochs": 0.5,
    "prune.batch_size": 32,
    "quantize.calibration_images": 32,
    "quantize.methods": ["minmax"],
    "quantize.qat_epochs": 0,
    "quantize.max_float_layers": 0,
    "quantize.tolerance": 0.5,
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


def make_checkout(root: Path, images: Path, shared: Path) -> Checkout:
    """Copy what Git would hold of the working tree; the environment is linked, the data copied."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")) and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    shutil.copytree(images, root / "images")
    (root / ".venv" / "bin").mkdir(parents=True)
    link_environment(root / ".venv")
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
    checkout = Checkout(root, environment)
    checkout.set(SETTINGS)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Start"]):
        subprocess.run(["git", *command], cwd=root, env=environment, check=True, capture_output=True)
    return checkout


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


def outcomes(checkout: Checkout) -> dict[str, str]:
    """Run the flow and return what became of the stages."""
    return json.loads(checkout.run("kinglet", "run", "--json").stdout)["stages"]


def run_and_kill_in_training(checkout: Checkout) -> None:
    """Start the flow, kill it with SIGKILL while it fine-tunes, and wait until all its processes are gone."""
    log = (checkout.root / "killed.log").open("w")
    run = subprocess.Popen(
        [str(checkout.root / ".venv" / "bin" / "kinglet"), "run"],
        cwd=checkout.root,
        env=checkout.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def is_training() -> bool:
        assert run.poll() is None, (checkout.root / "killed.log").read_text()[-4000:]
        return any("tasks.finetune" in command for _, command in processes_in(checkout.root))

    wait_until(is_training, SECONDS_FOR_A_RUN)
    time.sleep(4)
    assert is_training()
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    log.close()
    wait_until(lambda: not processes_in(checkout.root), 30)
    assert "finetune" not in checkout.lock()["stages"]


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("whole").resolve()
    write_images(made / "images")
    return made


@pytest.fixture(scope="module")
def by_dvc(folder: Path) -> Checkout:
    checkout = make_checkout(folder / "by_dvc", folder / "images", folder)
    checkout.run("dvc", "repro")
    return checkout


def test_dvc_alone_leaves_models_a_choice_and_a_report(by_dvc: Checkout) -> None:
    choice = json.loads((by_dvc.root / "artifacts" / "select" / "choice.json").read_text())
    assert (by_dvc.root / choice["onnx"]).is_file()
    assert (by_dvc.root / "artifacts" / "bundle" / "model.onnx").is_file()
    assert (by_dvc.root / "artifacts" / "report" / "report.html").is_file()
    assert {Path(path).parent.name for path in by_dvc.models()} >= {"teacher", "residual-8", "residual-8-pruned"}
    assert "up to date" in by_dvc.run("dvc", "repro").stdout


def test_flow_leaves_the_same_lock_and_models_as_dvc(by_dvc: Checkout, folder: Path) -> None:
    by_flow = make_checkout(folder / "by_flow", folder / "images", folder)
    assert set(outcomes(by_flow).values()) == {"ran"}
    assert by_flow.lock() == by_dvc.lock()
    assert by_flow.models() == by_dvc.models()
    assert set(outcomes(by_flow).values()) == {"unchanged"}

    # Another quantization trains nothing: what trained before stays as it is.
    trained = {path: digest for path, digest in by_flow.models().items() if "quantize" not in path}
    by_flow.set({"quantize.calibration_images": 16})
    again = outcomes(by_flow)
    assert again["quantize"] == "ran"
    assert {again[name] for name in ("ingest", "profile", "split", "finetune", "distill", "prune")} == {"unchanged"}
    assert {path: digest for path, digest in by_flow.models().items() if "quantize" not in path} == trained


def test_killed_flow_started_again_leaves_the_same_lock_and_models(by_dvc: Checkout, folder: Path) -> None:
    killed = make_checkout(folder / "killed", folder / "images", folder)
    run_and_kill_in_training(killed)
    again = outcomes(killed)
    assert again["split"] == "unchanged"
    assert again["finetune"] == "ran"
    assert killed.lock() == by_dvc.lock()
    assert killed.models() == by_dvc.models()
    assert not processes_in(killed.root)
