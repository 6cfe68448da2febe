"""The comment of a pull request: verdict, the way to the chosen model beside another revision's, what changed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import ARTIFACTS, BENCHMARK, EVALUATE, GATE, SELECT
from tasks.chapters.waterfall import change, lineage
from tasks.gate_words import SIGNS
from tasks.report_rows import between, model_rows, percent, signed, signed_between

# What a run found, by the name that `Run` has for it.
SOURCES = {
    "scores": EVALUATE / "scores.json",
    "latency": BENCHMARK / "latency.json",
    "choice": SELECT / "choice.json",
}
# GitHub refuses longer comments.
MAX_CHARACTERS = 65_536
# By it the comment is told from others, and replaced by the next one.
MARKER = "<!-- kinglet: report -->"
MAX_PARAGRAPH, MAX_CELL = 4_000, 600
MAX_VALUE = 80
# More is read by nobody; DVC's own command shows all.
MAX_CHANGES = 40
# What a reader looks for first.
FIRST = tuple(folder.name for folder in (GATE, SELECT, EVALUATE, BENCHMARK))
BOUNDS = (".low", ".high")
EM_DASH, TIMES = "\u2014", "\u00d7"
# Between the sign and a name: GitHub then calls nobody.
ZERO_WIDTH_SPACE = "\u200b"

# {file: {name: {"old", "new", and of numbers "diff"}}}, as DVC finds it.
Changes = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """What a run found: the contents of scores.json, latency.json and choice.json."""

    scores: dict[str, Any]
    latency: dict[str, Any]
    choice: dict[str, Any]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The models by name, as the report's tables show them."""
        return model_rows(
            self.scores["models"],
            self.latency["models"],
            self.scores["teacher"],
            self.choice["chosen"],
            self.choice["front"],
        )

    @property
    def way(self) -> list[dict[str, Any]]:
        """The rows of the models from which the chosen one was made, the first one first, the chosen one last."""
        rows = self.rows
        return [rows[name] for name in lineage(rows, self.choice["chosen"])]


def read_run() -> Run:
    """Return what the run in this checkout found.

    Raises KingletError if its models do not sort into classes: others have no such comment yet.
    """
    run = Run(**{name: read_json(path) for name, path in SOURCES.items()})
    if "headline" in run.scores:
        raise KingletError(
            "The comment on a pull request tells of models that sort into classes only, and those of this run are "
            f"scored by {run.scores['headline']}.",
            "Show artifacts/report/report.html in its place.",
        )
    return run


@dataclass(frozen=True)
class Comparison:
    """All that a comment tells.

    verdict: the content of verdict.json. answers: to the test images by model, arrays `predicted` and `label`.
    against: the revision that `before` is of, which is None if no run was kept there.
    """

    now: Run
    verdict: dict[str, Any]
    answers: dict[str, Any]
    against: str
    before: Run | None
    metrics: Changes
    params: Changes
    confidence: float
    seed: int


def comment(comparison: Comparison) -> str:
    """Return the comment as Markdown of at most `MAX_CHARACTERS` characters."""
    fixed = "\n\n".join([MARKER, verdict_part(comparison.verdict), way_part(comparison)])
    room = MAX_CHARACTERS - len(fixed)
    params = changes_part("Settings", "params", comparison.params, comparison.against, room // 2)
    parts = [fixed, params]
    if comparison.before is not None:
        room -= len(params)
        parts.append(changes_part("Metrics", "metrics", comparison.metrics, comparison.against, room))
    return "\n\n".join(parts) + "\n"


def verdict_part(verdict: dict[str, Any]) -> str:
    """Return the gate's decision, its paragraph, and every check with its reason."""
    checks = [
        [plain(check["name"]), SIGNS[check["outcome"]], plain(shortened(check["reason"], MAX_CELL))]
        for check in verdict["checks"]
    ]
    return "\n\n".join(
        [
            f"## {verdict['verdict'].capitalize()}: {plain(verdict['challenger']['model'])}",
            plain(shortened(verdict["paragraph"], MAX_PARAGRAPH)),
            folded("Every check", table(["check", "outcome", "reason"], checks)),
        ]
    )


def way_part(comparison: Comparison) -> str:
    """Return the way from the teacher to the chosen model as a table, with the models of the other revision beside."""
    now, before, against = comparison.now, comparison.before, plain(comparison.against)
    rows, way = now.rows, now.way
    old = before.rows if before else {}
    header = ["model", "how made", "accuracy, %", "to the one before", "p50 ms", "MB"]
    header += [f"{against}: accuracy, %", "p50 ms", "MB"] if before else []
    lines = []
    for parent, row in zip([None, *way[:-1]], way, strict=True):
        step = (
            change(rows, comparison.answers, parent["name"], row["name"], comparison.confidence, comparison.seed)
            if parent
            else None
        )
        lines.append([*model_cells(row, row is way[-1]), step_cell(step), *measures(row)])
        lines[-1] += old_cells(old.get(row["name"])) if before else []
    for row in before.way if before else []:
        if row["name"] not in {model["name"] for model in way}:
            lines.append([*model_cells(row, False)[:2], *[EM_DASH] * 4, *old_cells(row)])
    images, sure = way[-1]["test"]["n"], percent(comparison.confidence, 0)
    # Clips, and that they were generated, the verdict says.
    shown = comparison.verdict.get("shown", "images")
    said = f"Test accuracy on {images:,} {plain(shown)}, with intervals of {sure} % confidence; latency of batch 1."
    return "\n\n".join(
        filter(
            None, ["### From the teacher to the chosen model", table(header, lines), said, beside(now, before, against)]
        )
    )


def beside(now: Run, before: Run | None, against: str) -> str:
    """Return what has to be known to read the other revision's columns."""
    if before is None:
        return f"{against} holds no run yet: there is nothing to compare with."
    sentences = [f"{against} chose {plain(before.choice['chosen'])}."]
    if now.latency["device"] != before.latency["device"]:
        sentences.append(
            f"The latencies of {against} were measured on another machine "
            f"({plain(before.latency['device']['cpu'])}): they cannot be compared. The gate measures both models anew."
        )
    return " ".join(sentences)


def model_cells(row: dict[str, Any], chosen: bool) -> list[str]:
    """Return a model's name, the chosen one's in bold, how it was made, and its test accuracy."""
    name = plain(row["name"])
    made = f"{row['made']}, {row['input_size']} px, {row['precision']}"
    return [f"**{name}**" if chosen else name, made, accuracy_cell(row)]


def accuracy_cell(row: dict[str, Any]) -> str:
    """Return a test accuracy with its interval in percent."""
    accuracy = row["test"]["accuracy"]
    return f"{percent(accuracy['value'])} ({between(accuracy)})"


def measures(row: dict[str, Any]) -> list[str]:
    """Return latency and size."""
    return [f"{row['p50_ms']:.3f}", f"{row['size_mb']:.2f}"]


def old_cells(row: dict[str, Any] | None) -> list[str]:
    """Return what the other revision says about a model of this name; dashes if it has none."""
    return [accuracy_cell(row), *measures(row)] if row else [EM_DASH] * 3


def step_cell(step: dict[str, Any] | None) -> str:
    """Return what a step changed: points of accuracy, latency and size as factors."""
    if step is None:
        return ""
    said = f"{signed(step['difference']['value'])} ({signed_between(step['difference'])})"
    return f"{said}, latency {TIMES}{step['latency']['value']:.2f}, size {TIMES}{step['size']:.2f}"


def changes_part(word: str, kind: str, changes: Changes, against: str, room: int) -> str:
    """Return what changed as a table that is folded away, of at most `room` characters; what is left out is counted.

    kind: what DVC calls them, metrics or params.
    """
    title = f"{word} changed since {against}"
    found = [(file, name, values) for file, of_file in changes.items() for name, values in of_file.items()]
    if not found:
        return f"{plain(title)}: none."
    found.sort(key=lambda item: (weight(*item), item[0], item[1]))
    header, lines = ["name", "before", "now", "change"], []
    command = f"dvc {kind} diff {against}"
    length = 200 + len(title) + len(command)
    for file, name, values in found[:MAX_CHANGES]:
        line = change_cells(file, name, values)
        length += len(row_of(line)) + 1
        if length > room:
            break
        lines.append(line)
    left_out = len(found) - len(lines)
    rest = f"{left_out:,} more: `{command}`." if left_out else ""
    return folded(f"{title}: {len(found):,}", "\n\n".join(filter(None, [table(header, lines), rest])))


def weight(file: str, name: str, values: dict[str, Any]) -> tuple[bool, bool, int]:
    """Return how far down a change stands: ends of intervals below all, words below numbers, then by the step."""
    folder = file.split("/")[1] if file.startswith(f"{ARTIFACTS}/") else ""
    is_number = "diff" in values or isinstance(values["new" if values.get("new") is not None else "old"], int | float)
    return name.endswith(BOUNDS), not is_number, FIRST.index(folder) if folder in FIRST else len(FIRST)


def change_cells(file: str, name: str, values: dict[str, Any]) -> list[str]:
    """Return one change: file and name, old and new value, and the difference of numbers."""
    difference = values.get("diff")
    shown = f"{file.removeprefix(f'{ARTIFACTS}/')} {name}"
    change = f"{difference:+.5g}" if isinstance(difference, int | float) else ""
    return [plain(shown), value_cell(values.get("old")), value_cell(values.get("new")), change]


def value_cell(value: Any) -> str:
    """Return a value of any kind, a dash for none."""
    if value is None:
        return EM_DASH
    return plain(shortened(f"{value:.5g}" if isinstance(value, float) else str(value), MAX_VALUE))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown; the cells are Markdown already."""
    return "\n".join([row_of(header), row_of(["---"] * len(header)), *map(row_of, rows)])


def row_of(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(cells)} |"


def folded(title: str, body: str) -> str:
    """Return a part that the reader unfolds. title: any text; inside of HTML, nothing is Markdown."""
    return f"<details><summary>{html.escape(title)}</summary>\n\n{body}\n\n</details>"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def plain(text: str) -> str:
    r"""Return a text that Markdown shows as it is: names of classes, models and branches are anybody's.

    >>> plain("a|b *c* <img>")
    'a\\|b \\*c\\* &lt;img&gt;'
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|#~$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("@", f"@{ZERO_WIDTH_SPACE}")
