"""One virtual environment per peer, made from its pinned requirements and kept; and how its scripts are run there."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.reasons import PeerError, reason_in
from benchmarks.results import ROOT

REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_SECONDS = 1800
# No tool used here reports home: OpenVINO and NNCF do not in CI, Olive has a switch.
TELEMETRY_OFF = {"CI": "true", "NNCF_CI": "1", "OLIVE_DISABLE_TELEMETRY": "1"}


def environment(folder: Path, name: str, pinned: Path | None = None) -> Path:
    """Return the python of the environment called `name` in `folder`, which is made if it is not there.

    pinned: the folder of `name`.txt, what is installed; that of the peers unless given.

    Raises PeerError if pip fails.
    """
    requirements = (pinned or REQUIREMENTS) / f"{name}.txt"
    content = requirements.read_bytes() + sys.version.encode()
    place = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    python, stamp = place / "bin" / "python", place / ".installed"
    if stamp.exists():
        return python
    # One that was not finished is made anew.
    shutil.rmtree(place, ignore_errors=True)
    log = folder / f"{name}-install.log"
    folder.mkdir(parents=True, exist_ok=True)
    run_logged([sys.executable, "-m", "venv", str(place)], log, INSTALL_SECONDS, "its environment cannot be made")
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)]
    run_logged(install, log, INSTALL_SECONDS, "pip cannot install it")
    stamp.touch()
    return python


def run_recipe(python: Path, name: str, task: Path, output: Path, seconds: float, model: Path | None = None) -> Path:
    """Run a peer's recipe in its environment and return the model that it wrote to `output`.

    model: the ONNX file that it starts from; the task's teacher unless given.
    Raises PeerError if it fails, takes longer than `seconds`, or leaves no model.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    log = output / "log.txt"
    command = [str(python), "-m", f"benchmarks.peers.recipes.{name}", str(task), str(output)]
    command += ["--model", str(model)] if model else []
    run_logged(command, log, seconds, "its recipe fails", folder=output)
    return model_in(output)


def model_in(output: Path) -> Path:
    """Return the model that a recipe left in `output`; raises PeerError if there is none."""
    for model in (output / "model.onnx", output / "model.xml"):
        if model.is_file():
            return model
    raise PeerError("its recipe left no model.")


def peer_settings() -> dict[str, str]:
    """Return the variables for a peer's process: it finds this package wherever it runs, and reports nothing home."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, **TELEMETRY_OFF, "PYTHONPATH": str(ROOT)}


def run_logged(command: Sequence[str], log: Path, seconds: float, complaint: str, folder: Path = ROOT) -> None:
    """Run a command in `folder` with what it prints in `log`; raises PeerError with `complaint` and the reason."""
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=peer_settings(),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"{complaint}: stopped after {seconds / 60:.0f} minutes.") from None
    if done.returncode == -signal.SIGKILL:
        raise PeerError(f"{complaint}: it was killed, as the system does with what takes more memory than there is.")
    if done.returncode:
        raise PeerError(f"{complaint}: {reason_in(log)}")
