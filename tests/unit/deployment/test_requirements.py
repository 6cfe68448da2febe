"""What the image holds: the closure of what the server needs, and a lock that pip and we read alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinglet.deployment.requirements import Pinned, closure, lock_text, pinned, read_pins
from kinglet.errors import KingletError
from tasks.wheelhouse import read_image_lock, runtime_packages

ROOT = Path(__file__).resolve().parents[3]
REQUIRES = {
    "server": ["Loop>=1; sys_platform != 'win32'", "colors; sys_platform == 'win32'", "tls; extra == 'secure'"],
    "loop": ["old-typing; python_version < '3.8'", "server"],
}


def test_a_closure_follows_markers_of_the_image_and_no_extras() -> None:
    assert closure(["Server>=1"], REQUIRES.get, "3.11") == ["loop", "server"]
    assert closure(["server"], REQUIRES.get, "3.7") == ["loop", "old-typing", "server"]


def test_a_lock_is_read_as_it_was_written() -> None:
    packages = [Pinned("a", "1.0", ("1" * 64, "2" * 64)), Pinned("b-c", "2", ("3" * 64,)), Pinned("d", "3")]
    assert list(read_pins(lock_text(packages, "Two\nlines."), "x").values()) == packages


@pytest.mark.parametrize(
    ("line", "said"), [("numpy>=1", "numpy has no exact version"), ("==1", "'==1' is no requirement")]
)
def test_a_line_that_pins_nothing_is_named(line: str, said: str) -> None:
    with pytest.raises(KingletError, match=f"lock, line 2: {said}"):
        read_pins(f"# comment\n{line}\n", "lock")


def test_a_package_that_the_lock_lacks_is_named() -> None:
    with pytest.raises(KingletError, match=r"lock does not pin numpy"):
        pinned(["numpy"], {}, "lock")


def test_the_lock_of_the_image_is_what_the_lock_of_all_gives_and_has_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    locked = read_image_lock()
    names = {package.name for package in locked}
    assert {"onnxruntime", "numpy", "pillow", "uvicorn"} <= names
    assert not {"torch", "pandas", "prefect", "dvc", "onnx", "pip"} & names


def test_a_lock_of_the_image_that_is_out_of_date_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    packages = runtime_packages()
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "deploy").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy" / "image.lock").write_text(lock_text(packages[1:], "lacks one"))
    with pytest.raises(KingletError, match=r"image\.lock is not what requirements\.lock gives"):
        read_image_lock()
    (tmp_path / "deploy" / "image.lock").write_text(lock_text(packages, "no hashes"))
    with pytest.raises(KingletError, match="has no hash"):
        read_image_lock()
