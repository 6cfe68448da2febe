"""What of a DVC remote is worth another try, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.elsewhere import is_worth_another_try
from flows.remote import RemoteUnreachableError, call_dvc, is_unreachable, reason_of, refuse_without_remote
from flows.s3_server import free_port
from flows.stages import StageBusyError, StageFailedError, is_worth_a_retry
from kinglet.errors import KingletError


def state_of(error: Exception) -> Any:
    return SimpleNamespace(result=lambda raise_on_failure: error)


@pytest.mark.parametrize(
    ("error", "by_stage", "by_remote", "by_stage_elsewhere"),
    [
        (StageBusyError("locked"), True, False, True),
        (RemoteUnreachableError("refused"), False, True, True),
        (StageFailedError("split", 2), False, False, False),
        (KingletError("wrong keys"), False, False, False),
        (OSError("disk full"), False, False, False),
    ],
)
def test_only_what_passes_by_itself_is_tried_again(
    error: Exception, by_stage: bool, by_remote: bool, by_stage_elsewhere: bool
) -> None:
    state = state_of(error)
    assert is_worth_a_retry(None, None, state) is by_stage
    assert is_unreachable(None, None, state) is by_remote
    assert is_worth_another_try(None, None, state) is by_stage_elsewhere


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A DVC project with one file under DVC."""
    (tmp_path / "data.txt").write_text("data\n")
    for command in (
        ["git", "init", "-q"],
        *([sys.executable, "-m", "dvc", *each] for each in (["init", "-q"], ["add", "-q", "data.txt"])),
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_a_remote_that_does_not_answer_is_worth_another_try_and_a_folder_in_the_way_is_not(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KingletError, match="DVC has no default remote"):
        refuse_without_remote(checkout)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    call_dvc("remote", "add", "--default", "store", "s3://bucket/dvc", folder=checkout)
    call_dvc("remote", "modify", "store", "endpointurl", f"http://127.0.0.1:{free_port()}", folder=checkout)
    refuse_without_remote(checkout)
    with pytest.raises(RemoteUnreachableError, match="dvc push: "):
        call_dvc("push", folder=checkout)

    call_dvc("remote", "modify", "--unset", "store", "endpointurl", folder=checkout)
    blocked = checkout / "no-folder"
    blocked.write_text("")
    call_dvc("remote", "modify", "store", "url", str(blocked), folder=checkout)
    with pytest.raises(KingletError, match="`dvc push` failed in"):
        call_dvc("push", folder=checkout)


def test_the_reason_is_dvcs_own_sentence() -> None:
    assert reason_of("warning\nERROR: failed to push\nsee docs\n") == "failed to push"
    assert reason_of("only this\n") == "only this"
    assert reason_of("") == "it said nothing"
