"""The real pipeline on a few hundred real images: three ways through it, one result.

By `dvc repro`, by the flow, and by a flow that was killed while it trained and started again; each in a
copy of the working tree with a DVC cache of its own, so that nothing is handed from one to the other. Only what
follows the training that was killed may come from a cache: it is there for the very same teacher alone.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.pipeline.real_checkout import SECONDS_FOR_A_RUN, Checkout, make_checkout, processes_in
from tests.pipeline.small_project import wait_until

pytestmark = pytest.mark.timeout(1800)
UP_TO_TRAINING = ("ingest", "profile", "check_data", "split", "finetune")


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


def test_dvc_alone_leaves_models_a_choice_and_a_report(by_dvc: Checkout) -> None:
    choice = json.loads((by_dvc.root / "artifacts" / "select" / "choice.json").read_text())
    assert (by_dvc.root / choice["onnx"]).is_file()
    assert (by_dvc.root / "artifacts" / "bundle" / "model.onnx").is_file()
    assert (by_dvc.root / "artifacts" / "report" / "report.html").is_file()
    verdict = json.loads((by_dvc.root / "artifacts" / "gate" / "verdict.json").read_text())
    assert (verdict["verdict"] in ("accepted", "refused"), verdict["reference"]) == (True, "teacher")
    assert {Path(path).parent.name for path in by_dvc.models()} >= {"teacher", "residual-32", "residual-32-pruned"}
    assert "up to date" in by_dvc.run("dvc", "repro").stdout
    comment = by_dvc.run("kinglet", "report", "--comment", "--against", "HEAD").stdout
    assert f"## {verdict['verdict'].capitalize()}: {choice['chosen']}" in comment
    assert "HEAD holds no run yet" in comment


def test_flow_leaves_the_same_lock_and_models_as_dvc(by_dvc: Checkout, real_images: Path) -> None:
    by_flow = make_checkout(real_images / "by_flow", real_images, by_dvc.root)
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


def test_killed_flow_started_again_leaves_the_same_lock_and_models(by_dvc: Checkout, real_images: Path) -> None:
    killed = make_checkout(real_images / "killed", real_images, by_dvc.root)
    take_runs_after_training(by_dvc, killed)
    run_and_kill_in_training(killed)
    again = outcomes(killed)
    assert again["split"] == "unchanged"
    assert again["finetune"] == "ran"
    # As the teacher is the same to the byte, nothing that depends on it has to be made again.
    assert {again[name] for name in ("answer", "distill", "evaluate", "gate", "report")} == {"restored from cache"}
    assert killed.lock() == by_dvc.lock()
    assert killed.models() == by_dvc.models()
    assert not processes_in(killed.root)


def take_runs_after_training(done: Checkout, new: Checkout) -> None:
    """Give a new checkout the cache of one that is done, without the runs of the stages up to the training."""
    shutil.copytree(done.root / ".dvc" / "cache", new.root / ".dvc" / "cache")
    forgotten = 0
    for run in sorted((new.root / ".dvc" / "cache" / "runs").glob("*/*/*")):
        if yaml.safe_load(run.read_text())["cmd"].split(".")[-1] in UP_TO_TRAINING:
            # DVC stumbles over a folder of runs in which there is none.
            shutil.rmtree(run.parent)
            forgotten += 1
    assert forgotten == len(UP_TO_TRAINING)
