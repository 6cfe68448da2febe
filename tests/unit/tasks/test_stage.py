"""How a step ends: its exit code, its sentence, its timing, and with the process that started it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from kinglet.errors import KingletError
from tasks.stage import (
    FLOW_PID,
    INTERRUPTED_EXIT,
    USER_ERROR_EXIT,
    exit_code_of,
    is_alive,
    line_of_descent,
    read_timings,
    record_timing,
    timed,
)

ROOT = Path(__file__).resolve().parents[3]


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (KingletError("The folder is empty.", "Add images."), USER_ERROR_EXIT, ["error: The folder", "hint: Add"]),
        (KingletError("The folder is empty."), USER_ERROR_EXIT, ["error: The folder is empty.\n"]),
        (OSError(errno.ENOSPC, "No space left", "artifacts/x"), USER_ERROR_EXIT, ["No space left", "artifacts/x"]),
        (KeyboardInterrupt(), INTERRUPTED_EXIT, ["Stopped by the user."]),
    ],
)
def test_what_the_user_can_mend_is_a_sentence(
    error: BaseException, exit_code: int, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(lambda: raising(error)) == exit_code
    captured = capsys.readouterr()
    assert all(words in captured.err for words in said)
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EIO, "broken disk")])
def test_a_defect_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_code_of(lambda: raising(error))


def test_a_stage_keeps_when_it_worked_and_how_it_ended(tmp_path: Path) -> None:
    assert timed("split", lambda: 2, tmp_path) == 2
    with pytest.raises(ZeroDivisionError):
        timed("prune", lambda: 1 // 0, tmp_path)
    timings = read_timings(tmp_path)
    assert {name: entry["exit_code"] for name, entry in timings.items()} == {"split": 2, "prune": 1}
    assert all(entry["started"] <= entry["ended"] for entry in timings.values())


def test_stages_that_end_at_once_do_not_lose_each_others_timings(tmp_path: Path) -> None:
    names = [f"stage-{number}" for number in range(20)]
    threads = [threading.Thread(target=record_timing, args=(name, {"started": 0.0}, tmp_path)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_timings(tmp_path)) == sorted(names)


@pytest.mark.parametrize("content", [None, "", '{"cut', "[1]"])
def test_damaged_timings_count_as_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "timings.json").write_text(content)
    assert read_timings(tmp_path) == {}


def test_the_line_of_descent_goes_through_shells() -> None:
    script = "import json; from tasks.stage import line_of_descent; print(json.dumps(line_of_descent()))"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{script}"; true'],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    line = json.loads(done.stdout)
    assert len(line) == 2
    assert line[0][1] == line[1][0]
    assert line[1][1] == os.getpid()
    assert line_of_descent()[0] == (os.getpid(), os.getppid())


def test_a_process_that_nobody_waited_for_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 10
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(ended.pid)
    ended.wait()
    assert not is_alive(ended.pid)
    assert is_alive(os.getpid())


def test_a_step_ends_with_the_flow_that_started_it() -> None:
    flow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    step = subprocess.Popen(
        [sys.executable, "-c", "from tasks.stage import end_with_parent as e; import time; e(0.05); time.sleep(60)"],
        env={**os.environ, "PYTHONPATH": str(ROOT), FLOW_PID: str(flow.pid)},
    )
    time.sleep(1)
    assert step.poll() is None
    flow.kill()
    assert step.wait(10) == 1
    flow.wait()
