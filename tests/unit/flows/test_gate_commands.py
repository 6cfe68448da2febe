"""The gate's verdict as a command: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from flows.gate_commands import obey
from kinglet.atomic import write_json, write_text
from kinglet.errors import KingletError
from tasks.artifacts import BUNDLE, VERDICT
from tasks.champion import bundle_digest
from tasks.gate import policy_of
from tasks.parameters import load_parameters

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "champion").mkdir()
    write_text(BUNDLE / "SHA256SUMS", f"{'0' * 64}  model.onnx\n")
    return tmp_path


def write_verdict(word: str) -> None:
    outcome = "passed" if word == "accepted" else "failed"
    write_json(
        VERDICT,
        {
            "verdict": word,
            "paragraph": f"{word.capitalize()}: small [b] is judged.",
            "challenger": {"model": "small", "bundle": bundle_digest(BUNDLE)},
            "champion": {"folder": "champion", "bundle": ""},
            "policy": policy_of(load_parameters()),
            "checks": [{"name": "every class", "outcome": outcome, "reason": "The weakest is [red]."}],
        },
    )


def run(*command: str) -> Result:
    return CliRunner().invoke(app, list(command))


@pytest.mark.parametrize(("word", "code", "outcome"), [("accepted", 0, "passed"), ("refused", 1, "failed")])
def test_the_verdict_is_the_exit_code(word: str, code: int, outcome: str) -> None:
    write_verdict(word)
    done = run("gate", "--json")
    assert done.exit_code == code
    # Names of classes are anybody's, and no markup.
    assert "The weakest is [red]." in done.stderr
    assert f"{word.capitalize()}: small [b] is judged." in done.stderr
    assert outcome in done.stderr
    assert json.loads(done.stdout)["verdict"] == word


def test_a_refused_model_does_not_open_the_sealed_images() -> None:
    write_verdict("refused")
    done = run("gate", "--open-sealed")
    assert done.exit_code == 1
    assert "stay closed" in done.stderr


@pytest.mark.parametrize("command", [("gate",), ("promote",)])
def test_no_verdict_or_one_of_another_bundle_is_no_verdict(command: tuple[str, ...]) -> None:
    def said() -> Any:
        error = run(*command).exception
        assert isinstance(error, KingletError)
        return error.message

    assert "the gate has not judged" in said()
    write_verdict("accepted")
    write_text(BUNDLE / "SHA256SUMS", f"{'1' * 64}  model.onnx\n")
    assert "the bundle changed since" in said()


def test_a_run_obeys_the_gate_and_no_gate_is_no_pass() -> None:
    obey({"verdict": "accepted"})
    with pytest.raises(typer.Exit) as refused:
        obey({"verdict": "refused"})
    assert refused.value.exit_code == 1
    with pytest.raises(KingletError, match="has not judged"):
        obey(None)
