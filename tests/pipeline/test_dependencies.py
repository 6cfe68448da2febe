"""Every stage names the code that it runs: a change of it has to run the stage again."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# Read by many steps, and of no influence on what one makes: words, locks, parsing, how many processors work. A change
# of these, or of what only these import, runs nothing again. What computes a result stands in no such list.
NEUTRAL = {
    "kinglet/__init__.py",
    "kinglet/atomic.py",
    "kinglet/errors.py",
    "kinglet/reporting.py",
    "kinglet/runtime/memory.py",
    "kinglet/runtime/processors.py",
    "tasks/__init__.py",
    "tasks/artifacts.py",
    "tasks/clip_settings.py",
    "tasks/compression_settings.py",
    "tasks/data_settings.py",
    "tasks/evidence_settings.py",
    "tasks/offered_settings.py",
    "tasks/parameter_conflicts.py",
    "tasks/parameters.py",
    "tasks/setting_values.py",
    "tasks/settings_section.py",
    "tasks/training_settings.py",
    "tasks/progress.py",
    "tasks/stage.py",
}


def stages() -> dict[str, list[str]]:
    """Return {stage: the dependencies that are code of the project}."""
    described = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {
        name: [path for path in stage["deps"] if path.startswith(("tasks/", "kinglet/"))]
        for name, stage in described.items()
    }


def file_of(module: str) -> Path | None:
    """Return the file of a module of the project, None for another."""
    path = ROOT / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if module.split(".")[0] in ("kinglet", "tasks") and file.is_file():
            return file
    return None


def imported(file: Path) -> set[Path]:
    """Return the project's files that a file imports, at its top or in a function; not those for types alone."""
    found: set[Path] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(path for name in names if (path := file_of(name)))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text()))
    return found


def reached(start: Path) -> set[str]:
    """Return the project's files that run with a file, itself included, as paths from the root."""
    seen: set[Path] = set()
    waiting = {start}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        if file.relative_to(ROOT).as_posix() not in NEUTRAL:
            waiting |= imported(file) - seen
    return {path.relative_to(ROOT).as_posix() for path in seen}


def test_imports_are_followed_through_functions_and_packages_and_not_for_types() -> None:
    files = reached(ROOT / "tasks/bundle.py")
    assert {"tasks/bundle.py", "kinglet/runtime/bundles.py", "kinglet/compression/saturation.py"} <= files
    assert "tasks/finetune.py" not in files


@pytest.mark.parametrize("stage", list(stages()))
def test_a_stage_depends_on_all_the_code_that_it_runs(stage: str) -> None:
    named = stages()[stage]
    missing = [
        file
        for file in sorted(reached(ROOT / f"tasks/{stage}.py") - NEUTRAL)
        if not file.endswith("__init__.py") and not any(file == path or file.startswith(f"{path}/") for path in named)
    ]
    assert not missing, f"dvc.yaml: {stage} runs {', '.join(missing)}, which its deps do not name"


@pytest.mark.parametrize("stage", list(stages()))
def test_every_dependency_exists(stage: str) -> None:
    assert not [path for path in stages()[stage] if not (ROOT / path).exists()]
