"""Another parameter file takes the place of params.yaml, and never an edit that is kept nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.parameter_file import use_parameters
from kinglet.errors import KingletError

ROOT = Path(__file__).resolve().parents[3]
DEFAULT = (ROOT / "params.yaml").read_text()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(DEFAULT)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "full.yaml").write_text(DEFAULT.replace("seed: 0", "seed: 7"))
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@e", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seed(checkout: Path) -> str:
    return (checkout / "params.yaml").read_text().splitlines()[2]


def test_a_committed_params_yaml_is_replaced(checkout: Path) -> None:
    use_parameters(Path("params/full.yaml"))
    assert seed(checkout) == "seed: 7"
    # And back: what stands there now is the content of a file in params/.
    (checkout / "fast.yaml").write_text(DEFAULT)
    use_parameters(Path("fast.yaml"))
    assert seed(checkout) == "seed: 0"


def test_edits_that_are_kept_nowhere_else_are_not_lost(checkout: Path) -> None:
    (checkout / "params.yaml").write_text(DEFAULT.replace("seed: 0", "seed: 3"))
    with pytest.raises(KingletError, match="neither in Git nor in params/") as caught:
        use_parameters(Path("params/full.yaml"))
    assert "--overwrite-params" in caught.value.hint
    assert seed(checkout) == "seed: 3"
    use_parameters(Path("params/full.yaml"), overwrite=True)
    assert seed(checkout) == "seed: 7"


def test_a_wrong_file_replaces_nothing(checkout: Path) -> None:
    (checkout / "wrong.yaml").write_text(DEFAULT.replace("seed: 0", "seed: -1"))
    with pytest.raises(KingletError, match=r"wrong\.yaml: seed is -1"):
        use_parameters(Path("wrong.yaml"), overwrite=True)
    with pytest.raises(KingletError, match=r"missing\.yaml does not exist"):
        use_parameters(Path("missing.yaml"))
    assert seed(checkout) == "seed: 0"


def test_outside_git_an_unknown_params_yaml_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(DEFAULT)
    (tmp_path / "other.yaml").write_text(DEFAULT.replace("seed: 0", "seed: 7"))
    with pytest.raises(KingletError):
        use_parameters(Path("other.yaml"))
