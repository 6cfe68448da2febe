"""What is deployed: kept in order, read as it was written, never half."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from kinglet.deployment.deployed import KEPT, Deployed, Deployment, from_text, to_json
from kinglet.errors import KingletError
from tasks.deployment_state import STATE, only_deployment, read_deployed, write_deployed


def deployment(number: int) -> Deployment:
    return Deployment(f"sha256:{number:064x}", f"v{number}", f"kinglet-{number}")


def test_a_rollback_goes_to_the_one_before_and_then_to_the_one_before_that() -> None:
    state = Deployed()
    for number in range(3):
        state = state.followed_by(deployment(number))
    assert (state.current, state.previous) == (deployment(2), (deployment(0), deployment(1)))
    back = state.rolled_back(deployment(1))
    assert (back.current, back.previous) == (deployment(1), (deployment(0),))


def test_the_same_image_again_is_nothing_to_go_back_to() -> None:
    state = Deployed().followed_by(deployment(1))
    again = Deployment(deployment(1).image, "v1", "another-container")
    assert state.followed_by(again) == Deployed(again)


def test_only_so_many_are_kept() -> None:
    state = Deployed()
    for number in range(KEPT + 3):
        state = state.followed_by(deployment(number))
    assert state.previous == tuple(deployment(number) for number in range(2, KEPT + 2))


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_deployed(tmp_path) == Deployed()
    state = Deployed(deployment(2), (deployment(0), deployment(1)))
    write_deployed(state, tmp_path)
    assert read_deployed(tmp_path) == state
    write_deployed(Deployed(), tmp_path)
    assert read_deployed(tmp_path) == Deployed()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "current": {"image": "x"}, "previous": []}', "{"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE).write_text(text)
    with pytest.raises(KingletError, match=r"deployed\.json does not say what is deployed"):
        read_deployed(tmp_path)


def test_a_newer_format_is_refused() -> None:
    text = json.dumps({**to_json(Deployed(deployment(1))), "format": 2})
    with pytest.raises(KingletError, match="format 2; this version of Kinglet reads format 1"):
        from_text(text, "x")


def hold(folder: Path, held: object, done: object) -> None:
    with only_deployment(folder):
        held.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_of_two_deployments_one_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, done))
    other.start()
    assert held.wait(60)
    with (
        pytest.raises(KingletError, match=f"Another deployment \\(process {other.pid}\\)"),
        only_deployment(tmp_path),
    ):
        pass
    other.kill()
    other.join(60)
    with only_deployment(tmp_path):
        pass
