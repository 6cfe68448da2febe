"""The rows of whole runs: their time, what they made, the other problems, and int8 of the backbones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.tables.words import Rows, accuracy_in_words, duration, megabytes, points_in_words, seconds_in_words

SCORES_IN_WORDS = {
    "accuracy": "accuracy",
    "map_50": "mAP50",
    "pixel_accuracy": "pixel accuracy",
    "dice": "Dice",
    "miou": "mean IoU",
}
PROBLEM_GOALS = {
    "detection": "teacher at least 85 %; int8 at most 1 point below, at least 2 times as fast",
    "segmentation": "pixel accuracy at least 93 % cross-validated; int8 at most 1 point of mean IoU below",
    "video": "at least 95 %",
}


@dataclass(frozen=True)
class RunGoals:
    """What a whole run is called in the table, and what it must reach; "" where nothing was set."""

    title: str
    time: str = ""
    orchestration: str = ""
    teacher: str = ""
    chosen: str = ""


DEFAULT_RUN = RunGoals(
    "Default run",
    time="at most 15 min and 6 GB",
    orchestration="at most 10 %",
    teacher="at least 93.0 %",
    chosen="at most 1.0 points below the big model, at least 4 times as fast",
)
FULL_RUN = RunGoals("`params/full.yaml`", teacher="at least 94.5 %", chosen="at most 0.5 points below the big model")
FOLDER_RUN = RunGoals("2,527 photos of waste (trashnet), default settings", teacher="at least 90 %")


def run_rows(figures: dict[str, Any], goals: RunGoals) -> Rows:
    """Return the rows of a whole run."""
    models = {model["name"]: model for model in figures["models"]}
    teacher, chosen = models[figures["teacher"]], models[figures["chosen"]]
    memory = f"{figures['peak_memory_mb'] / 1000:.1f} GB ({figures['memory_measure'].upper()}, all processes)"
    below = 100 * (teacher["test_accuracy"]["value"] - chosen["test_accuracy"]["value"])
    return [
        (
            f"{goals.title}: time without installation, memory at the peak",
            goals.time,
            f"**{duration(figures['wall_seconds'])}**, {memory}",
        ),
        (
            f"{goals.title}: orchestration's share of the time",
            goals.orchestration,
            f"**{100 * figures['orchestration_share']:.1f} %** ({duration(figures['orchestration_seconds'])})",
        ),
        (
            f"{goals.title}: test accuracy of the big model",
            goals.teacher,
            f"**{accuracy_in_words(teacher['test_accuracy'])}**",
        ),
        (
            f"{goals.title}: the chosen model",
            goals.chosen,
            f"**{below:.2f} points {'below' if below >= 0 else 'above'}**, **{chosen['times_faster']:.1f} times as "
            f"fast**, {megabytes(chosen)} MB instead of {megabytes(teacher)} MB, "
            f"{accuracy_in_words(chosen['test_accuracy'])}",
        ),
    ]


def nothing_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of nothing_to_do.json."""
    return [
        (f"Nothing to do: `{command}`", goal, seconds_in_words(figures[key]))
        for command, key, goal in (
            ("dvc repro", "dvc_repro_seconds", "at most 3 s"),
            ("kinglet run", "kinglet_run_seconds", "at most 15 s"),
        )
    ]


def problem_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of problem_PROBLEM.json."""
    teacher, chosen = figures["teacher"], figures["chosen"]
    problem, score = figures["problem"], SCORES_IN_WORDS[figures["headline"]]
    made = ", made for it" if figures["generated"] else ""
    folds = ", ".join(
        f"{words} **{accuracy_in_words(figures['out_of_fold'][name])}**"
        for name, words in SCORES_IN_WORDS.items()
        if name in figures["out_of_fold"]
    )
    ratio = teacher["p50_ms"] / chosen["p50_ms"]
    there = chosen.get("score_without_vnni")
    measured = (
        f"teacher {score} {accuracy_in_words(teacher['score'])}; {chosen['name']} "
        f"**{points_in_words(chosen['difference_to_teacher'])} points**, **{ratio:.1f} times as fast** "
        f"({chosen['p50_ms']:.2f} instead of {teacher['p50_ms']:.2f} ms), {megabytes(chosen)} MB instead of "
        f"{megabytes(teacher)} MB{f'; without VNNI {accuracy_in_words(there)}' if there else ''}"
        f"{f'; cross-validated {folds}' if folds else ''}"
    )
    what = (
        f"{problem.capitalize()}: {figures['data']}{made}, {teacher['input_size']} px, "
        f"{figures['test_examples']:,} for the test"
    )
    return [(what, PROBLEM_GOALS.get(problem, ""), measured)]


def out_of_fold_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of out_of_fold.json."""
    folds, faster, smaller = figures["folds"], figures["times_faster"], figures["times_smaller"]
    sizes = " or ".join(f"{size} px" for size in sorted({fold["teacher"]["input_size"] for fold in folds}))
    budget = f", {' and '.join(figures['set'])}" if figures["set"] else ""
    longest = max(fold["training_seconds"] for fold in folds)
    measured = (
        f"teacher {accuracy_in_words(figures['teacher'])}; chosen **{points_in_words(figures['difference'])} points**, "
        f"**{faster['median']:.1f} times as fast** ({faster['low']:.1f} to {faster['high']:.1f}), "
        f"**{smaller['median']:.1f} times smaller** ({smaller['low']:.1f} to {smaller['high']:.1f}); "
        f"search and training {duration(longest)} a fold at most"
    )
    what = (
        f"{figures['images']:,} photos of {figures['source']}, `{figures['params']}`{budget}, {sizes}: "
        f"the whole recipe in each of {len(folds)} folds, judged out of fold"
    )
    return [(what, "lower bound above -2 points, at least 6 times as fast, 8 times smaller, at most 3 h", measured)]


def backbone_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of int8_of_backbones.json, one a backbone."""
    version = figures["versions_of_nncf"]["nncf"]
    return [
        (
            f"int8 of {found['backbone']}, {found['input_size']} px, {100 * found['accuracy']['value']:.2f} % in fp32",
            f"loses no more than NNCF {version}'s of the same file; at most 0.5 points on CPUs without VNNI",
            f"**{points_in_words(found['kinglet_to_nncf'])} points to NNCF's**, "
            f"{points_in_words(found['kinglet_to_fp32'])} to fp32 (NNCF's: {points_in_words(found['nncf_to_fp32'])}); "
            f"without VNNI {without_vnni_in_words(found)}",
        )
        for found in figures["backbones"]
    ]


def without_vnni_in_words(found: dict[str, Any]) -> str:
    """Return what an int8 model loses to fp32 on processors without VNNI, with the variant that is for them."""
    same = points_in_words(found["without_vnni_same_file_to_fp32"])
    variant = found.get("without_vnni_variant_to_fp32")
    return f"**{points_in_words(variant)}** to fp32 (the same file: {same})" if variant else f"**{same}** to fp32"
