"""What must hold before stages work on other machines, and how entries of dvc.lock come back."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from flows.elsewhere import merge_lock, origin_of, read_lock, refuse_unadded, refuse_uneven
from flows.graph import Stage
from flows.runners import dask_scheduler, task_runner
from flows.stages import StageFailedError
from kinglet.errors import KingletError


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("setting", ["", "threads"])
def test_stages_work_in_threads_unless_told_otherwise(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINGLET_RUNNER", setting)
    assert dask_scheduler() is None
    assert type(task_runner()).__name__ == "ThreadPoolTaskRunner"


def test_a_dask_scheduler_is_named_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed: pip install '.[cluster]'")
    monkeypatch.setenv("KINGLET_RUNNER", "dask:tcp://10.0.0.1:8786")
    assert dask_scheduler() == "tcp://10.0.0.1:8786"
    assert type(task_runner()).__name__ == "DaskTaskRunner"


@pytest.mark.parametrize("setting", ["dask", "dask:10.0.0.1", "ray:ray://10.0.0.1", "Threads"])
def test_a_runner_that_is_none_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINGLET_RUNNER", setting)
    with pytest.raises(KingletError, match="known are `threads` and `dask:ADDRESS`"):
        dask_scheduler()


def test_dask_is_not_imported_for_a_run_on_one_machine() -> None:
    program = "import sys, flows.retrain; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_other_machines_would_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINGLET_REPOSITORY", raising=False)
    for key in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{key}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "test@example.org")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    run(tmp_path, "git", "init", "-q", "--bare", "origin.git")
    run(checkout, "git", "init", "-q")
    run(checkout, sys.executable, "-m", "dvc", "init", "-q")
    with pytest.raises(KingletError, match="DVC has no default remote"):
        origin_of(checkout)
    run(checkout, sys.executable, "-m", "dvc", "remote", "add", "-q", "--default", "store", str(tmp_path / "store"))
    with pytest.raises(KingletError, match=r"Other machines work on what is committed, and \.dvc.* is not"):
        origin_of(checkout)
    run(checkout, "git", "add", "-A")
    run(checkout, "git", "commit", "-qm", "Start")
    with pytest.raises(KingletError, match="git remote get-url origin"):
        origin_of(checkout)
    run(checkout, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    with pytest.raises(KingletError, match="has no branch at the commit"):
        origin_of(checkout)
    run(checkout, "git", "push", "-q", "origin", "HEAD:main")
    # What a run leaves does not stand in the way of the next.
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    assert origin_of(checkout).repository == str(tmp_path / "origin.git")


def test_a_cluster_whose_stages_would_disturb_one_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINGLET_OWN_SERVER", raising=False)
    refuse_uneven({"tcp://10.0.0.2:1": {"nthreads": 1}})
    with pytest.raises(KingletError, match="has no workers"):
        refuse_uneven({})
    with pytest.raises(KingletError, match=r"10\.0\.0\.2:1 would let 4 stages work side by side"):
        refuse_uneven({"tcp://10.0.0.2:1": {"nthreads": 4}})
    monkeypatch.setenv("KINGLET_OWN_SERVER", "http://127.0.0.1:4200/api")
    refuse_uneven({"tcp://127.0.0.1:1": {"nthreads": 1}})
    with pytest.raises(KingletError, match="cannot reach a Prefect server that only this machine sees"):
        refuse_uneven({"tcp://10.0.0.2:1": {"nthreads": 1}})


def test_a_data_set_that_differs_from_its_file_is_refused() -> None:
    refuse_unadded([Stage("data/photos.dvc", (), False, False), Stage("split", ("data/photos.dvc",), False, True)])
    with pytest.raises(KingletError, match=r"data/photos is not as data/photos\.dvc says"):
        refuse_unadded([Stage("data/photos.dvc", (), False, True)])


def test_entries_replace_those_of_the_same_stages_and_leave_others(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == {}
    merge_lock(tmp_path, {"a": {"cmd": "a"}, "b": {"cmd": "b"}})
    merge_lock(tmp_path, {"b": {"cmd": "c"}})
    assert read_lock(tmp_path) == {"a": {"cmd": "a"}, "b": {"cmd": "c"}}
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.lock"]


def test_a_failure_travels_between_machines_with_its_reason() -> None:
    error = pickle.loads(pickle.dumps(StageFailedError("split", 2, "No images.")))
    assert (error.stage, error.exit_code, error.reason) == ("split", 2, "No images.")
    assert str(error) == "Stage 'split' failed (exit code 2). No images."
