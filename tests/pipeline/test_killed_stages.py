"""kill -9 in the middle of every stage of the real pipeline: nothing half-written counts, and it goes on.

Every stage is stopped at the moment when a file is written but does not have its name yet. Then its step
or, for every second stage, DVC is killed with SIGKILL, and the stage is run again, before the next is stopped.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from tests.pipeline.real_checkout import SECONDS_FOR_A_RUN, SETTINGS, Checkout, make_checkout, processes_in
from tests.pipeline.small_project import ROOT, wait_until

# Of the folds that are made from one entry, every one.
STAGES = tuple(
    name
    for entry, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
    for name in ([f"{entry}@1-{fold}" for fold in SETTINGS["crossvalidate.folds"]] if "matrix" in stage else [entry])
)

# Python imports it at its start. The step `KINGLET_TEST_STAGE` then waits for ever before it gives its file number
# `KINGLET_TEST_FILE` its name; a pool's processes, other steps and DVC itself do not.
STOP_BEFORE_RENAME = """
import os, sys, time

is_step = len(sys.orig_argv) > 2 and sys.orig_argv[1] == "-m" and sys.orig_argv[2].startswith("tasks.")
if is_step and os.environ["DVC_STAGE"] == os.environ["KINGLET_TEST_STAGE"]:
    left = int(os.environ["KINGLET_TEST_FILE"])
    replace = os.replace

    def stop(source, target, **options):
        global left
        left -= 1
        if left == 0:
            with open(os.environ["KINGLET_TEST_STOPPED"], "w") as file:
                file.write(f"{os.getpid()} {source}")
            time.sleep(3600)
        replace(source, target, **options)

    os.replace = stop
"""
# The training is to go on from its first epoch's end: it is killed when it writes the file after.
FILE_TO_STOP_AT = {"finetune": 2, "distill": 2, "prune": 2}


def start_and_stop(
    checkout: Checkout, before: list[str], stage: str, stopper: Path
) -> tuple[subprocess.Popen[bytes], int, Path]:
    """Start `dvc repro -s BEFORE STAGE`; return DVC, the process id of STAGE's step and the file it was about to name.

    before: stages that are run to their end first; none, or the one that was killed.
    """
    stopped = stopper / f"stopped-{stage}"
    with log_of(checkout, stage).open("wb") as log:
        dvc = subprocess.Popen(
            [str(checkout.root / ".venv" / "bin" / "dvc"), "repro", "-s", *before, stage],
            cwd=checkout.root,
            env={
                **checkout.environment,
                "PYTHONPATH": str(stopper),
                # What it said is to be read after it was killed.
                "PYTHONUNBUFFERED": "1",
                "KINGLET_TEST_STAGE": stage,
                "KINGLET_TEST_FILE": str(FILE_TO_STOP_AT.get(stage, 1)),
                "KINGLET_TEST_STOPPED": str(stopped),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def is_stopped() -> bool:
        assert dvc.poll() is None, log_of(checkout, stage).read_text()[-4000:]
        return stopped.exists() and len(stopped.read_text().split(maxsplit=1)) == 2

    wait_until(is_stopped, SECONDS_FOR_A_RUN)
    pid, source = stopped.read_text().split(maxsplit=1)
    return dvc, int(pid), checkout.root / source


def log_of(checkout: Checkout, stage: str) -> Path:
    return checkout.root / f".kinglet-killed-{stage}.log"


@pytest.mark.timeout(1800)
def test_every_stage_killed_in_the_middle_is_not_taken_for_done_and_goes_on(
    by_dvc: Checkout, real_images: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOP_BEFORE_RENAME)
    checkout = make_checkout(real_images / "killed_stages", real_images, by_dvc.root)
    killed: list[str] = []
    for number, stage in enumerate(STAGES):
        dvc, step, half_written = start_and_stop(checkout, killed, stage, tmp_path)
        for again in killed:
            assert f"Running stage '{again}'" in log_of(checkout, stage).read_text(), f"{again} did not run again"
            assert again in stages_in_lock(checkout)
        assert half_written.exists(), stage
        kill_dvc = number % 2 == 1
        psutil.Process(dvc.pid if kill_dvc else step).kill()
        assert dvc.wait(60) != 0
        wait_until(lambda: not processes_in(checkout.root), 60)
        assert stage not in stages_in_lock(checkout), f"{stage} counts as done"
        killed = [stage]

    last = checkout.run("dvc", "repro")
    assert f"Running stage '{killed[0]}'" in last.stdout, f"{killed[0]} did not run again"
    assert last.stdout.count("Running stage") == 1
    assert "up to date" in checkout.run("dvc", "repro").stdout
    assert checkout.lock() == by_dvc.lock()
    assert checkout.models() == by_dvc.models()


def stages_in_lock(checkout: Checkout) -> set[str]:
    return set(checkout.lock()["stages"]) if (checkout.root / "dvc.lock").exists() else set()
