"""The tables of README.md, made from the result files and from nothing else.

Writes what lies between `<!-- benchmarks:begin -->` and `<!-- benchmarks:end -->` (what, goal,
measured, machine, date, command), between `<!-- models:begin -->` and `<!-- models:end -->` (the models of
the default run), and between `<!-- peers:begin -->` and `<!-- peers:end -->` (Kinglet beside its peers, for
each data set on which that was measured).

    .venv/bin/python -m benchmarks.table          # write
    .venv/bin/python -m benchmarks.table --check  # only say whether README.md is what the files give
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_in_words
from benchmarks.results import RESULTS, ROOT, counted, read_result
from kinglet.atomic import write_text
from kinglet.errors import KingletError
from tasks.stage import exit_code_of

README = ROOT / "README.md"
# What, its goal and what was measured: one row of the table.
Rows = list[tuple[str, str, str]]

HOW_MADE = {
    "finetune": "fine-tuned from ImageNet",
    "distill": "distilled from",
    "prune": "pruned from",
    "quantize": "quantized from",
    "export": "converted from",
}


ADAPTATIONS = {
    "batch_norm": "batch statistics of {adaptation:,} images without labels",
    "self_training": "self-training on {adaptation:,} images without labels",
    "finetune": "fine-tuning on {labelled:,} labelled images",
}
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
SERVERS = {"litserve": "LitServe", "bentoml": "BentoML"}


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


def training_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of training_speed.json."""
    titles = {"fashion-mnist": "Fashion-MNIST", "photos": "{images:,} photos"}
    rows = []
    for name, found in figures.items():
        ratio, kinglet, obvious = found["ratio"], found["kinglet_images_per_second"], found["obvious_images_per_second"]
        title = titles[name].format(**found)
        measured = (
            f"**{ratio['median']:.2f} times** ({ratio['low']:.2f} to {ratio['high']:.2f}, "
            f"{counted(len(ratio['values']), 'pair')}): {kinglet['median']:.0f} beside {obvious['median']:.0f} images/s"
        )
        what = f"Training beside the obvious PyTorch loop, {title}, {found['input_size']} px"
        rows.append((what, "at least 1.8 times as fast", measured))
    return rows


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


def bootstrap_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of bootstrap_speed.json."""
    work = f"{figures['resamples']:,} resamples of {figures['images']:,} predictions, one core"
    scipy = figures["scipy_accuracy_seconds"]["median"]
    return [
        (
            f"Intervals of accuracy and macro F1: {work}",
            "at most 2 s",
            f"{seconds_in_words(figures['accuracy_and_f1_seconds'])}; of the accuracy alone, image by image in SciPy: "
            f"{scipy:.1f} s",
        ),
        (
            f"Intervals of every score of {figures['models']} models: {work}",
            "",
            seconds_in_words(figures["every_score_seconds"]),
        ),
    ]


def box_augmentation_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of box_augmentation.json."""
    rates = {
        name: round(figures[f"{name}_pictures_per_second"]["median"])
        for name in ("kinglet", "torchvision", "kinglet_with_mosaics")
    }
    times = figures["times_torchvision"]
    return [
        (
            f"Boxes augmented beside torchvision {figures['torchvision_version']}, {figures['size']} px, one core",
            "at least as fast",
            f"**{times['median']:.1f} times** ({times['low']:.1f} to {times['high']:.1f}): {rates['kinglet']} beside "
            f"{rates['torchvision']} pictures/s; with mosaics, which torchvision does not make, "
            f"{rates['kinglet_with_mosaics']}",
        )
    ]


def robustness_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of robustness_speed.json."""
    images = f"{figures['images']:,} images of {figures['image_size']} px"
    what = f"Robustness: {figures['corruptions']} corruptions of {images}, {counted(len(figures['models']), 'model')}"
    measured = (
        f"**{duration(figures['wall_seconds'])}**, {figures['peak_memory_mb'] / 1000:.1f} GB; the corruptions alone "
        f"{figures['corruption_us_per_image'] / figures['corruptions']:.0f} µs each, on one processor"
    )
    return [(what, "at most 6 min and 4 GB", measured)]


def adaptation_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of adaptation.json: every method on every model."""
    rows = []
    for name, of_model in figures["models"].items():
        before, source = of_model["target_accuracy"]["value"], of_model["source_accuracy"]["value"]
        for method, found in of_model["methods"].items():
            used = ADAPTATIONS[method].format(**of_model["images"])
            what = f"Another camera, made ({100 * source:.1f} to {100 * before:.1f} %): {name}, {used}"
            recovered, forgotten = found["recovered"], found["source_change"]
            measured = (
                f"**{100 * recovered['value']:.0f} % won back** ({100 * recovered['low']:.0f} to "
                f"{100 * recovered['high']:.0f}): {100 * found['target_accuracy']['value']:.1f} %; the images it came "
                f"from {100 * forgotten['value']:+.1f} points"
            )
            rows.append((what, "at least half of what the change cost", measured))
    return rows


def serving_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of serving.json."""
    own = figures["kinglet"]
    share, above = own["share_of_loop"], own["p99_above_loop_ms"]
    rows = [
        (
            "Server: JPEG in, class out, beside a bare loop on the same core",
            "at least 70 % of its images/s",
            f"**{100 * share['median']:.0f} %** ({100 * share['low']:.0f} to {100 * share['high']:.0f}, "
            f"{counted(len(share['values']), 'round')}): {own['per_second']['median']:,.0f} beside "
            f"{figures['bare_loop']['per_second']['median']:,.0f}; "
            f"{100 * own['cpu_share_of_loop']['median']:.0f} % in processor time",
        ),
        (
            "Server: 99th percentile at 80 % load above the bare loop's at 80 % of its own",
            "at most 5 ms",
            f"**{above['median']:.1f} ms** ({above['low']:.1f} to {above['high']:.1f}){waited_in_words(own)}",
        ),
    ]
    for name, peer in sorted(figures["peers"].items()):
        what, goal = (
            f"Server: beside {SERVERS[name]} with the same file",
            "at least 2 times its requests/s, a lower p99",
        )
        if "failed" in peer:
            rows.append((what, goal, f"no result: {peer['failed']}"))
            continue
        times = peer["times_kinglet"]
        rows.append(
            (
                f"{what}, version {peer['version']}",
                goal,
                f"**{times['median']:.1f} times** ({times['low']:.1f} to {times['high']:.1f}); p99 at 80 % load "
                f"{own['p99_ms']['median']:.1f} beside {peer['p99_ms']['median']:.1f} ms",
            )
        )
    return rows


def waited_in_words(own: dict[str, Any]) -> str:
    """Return how long others had the server's core; nothing for results from before that was measured."""
    if "waited_share" not in own:
        return ""
    return f", while other programs had the core for {100 * own['waited_share']['median']:.0f} % of the time"


def soak_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of serving_soak.json."""
    what = f"Server: {figures['minutes']:g} min of mixed load, bad requests in it"
    memory = f"{figures['memory_before_mb']:.0f} to {figures['memory_after_mb']:.0f} MB"
    measured = (
        f"**{figures['unexpected']} unexpected** of {figures['requests']:,}, "
        f"memory **{100 * figures['growth']:+.1f} %** ({memory})"
    )
    return [(what, "no unexpected answer, memory flat within 5 %", measured)]


def container_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of container.json."""
    whole, half = figures["quotas"]["1.0"], figures["quotas"]["0.5"]
    ready = whole["ready_seconds"]
    return [
        (
            "Container: size above the base image; ready",
            "at most 180 MB; within 3 s",
            f"**{figures['above_base_mb']:.0f} MB**; **{ready['median']:.1f} s** ({ready['low']:.1f} to "
            f"{ready['high']:.1f}, {counted(len(ready['values']), 'start')})",
        ),
        (
            "Container under half a core: requests/s and 99th percentile at 80 % load",
            "those of half a core",
            f"**{half['per_second']['median']:,.0f} requests/s** beside {whole['per_second']['median']:,.0f} under a "
            f"whole one, p99 **{half['p99_ms']['median']:.0f} ms** ({half['p99_ms']['low']:.0f} to "
            f"{half['p99_ms']['high']:.0f}; the quota's period is 100 ms) beside {whole['p99_ms']['median']:.0f} ms, "
            f"{half['memory_mb']['median']:.0f} MB of memory",
        ),
    ]


def monitoring_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of monitoring.json."""
    alarms, server = figures["alarms"], figures["server"]
    still, moved = alarms["without_drift"], alarms["with_drift"]
    seen = ", ".join(f"{name} {found['alarms']} of {found['checks']}" for name, found in moved.items())
    cost = server["cpu_times"]
    return [
        (
            f"Monitoring: checks of {alarms['stream_images']:,} images without drift that alarm",
            f"{100 * alarms['false_alarm_rate']:g} %, as asked for",
            f"**{100 * still['share']:.1f} %** ({100 * still['low']:.1f} to {100 * still['high']:.1f}): "
            f"{still['alarms']} of {still['checks']:,}",
        ),
        ("Monitoring: checks that see a drift, made", "", f"**{seen}**"),
        (
            f"Server with `--monitor` beside without, images of {server['pixels']} px",
            "",
            f"**{cost['median']:.2f} times** the processor time per request ({cost['low']:.2f} to {cost['high']:.2f})",
        ),
    ]


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
    measured = (
        f"teacher {score} {accuracy_in_words(teacher['score'])}; {chosen['name']} "
        f"**{points_in_words(chosen['difference_to_teacher'])} points**, **{ratio:.1f} times as fast** "
        f"({chosen['p50_ms']:.2f} instead of {teacher['p50_ms']:.2f} ms), {megabytes(chosen)} MB instead of "
        f"{megabytes(teacher)} MB{f'; cross-validated {folds}' if folds else ''}"
    )
    what = (
        f"{problem.capitalize()}: {figures['data']}{made}, {teacher['input_size']} px, "
        f"{figures['test_examples']:,} for the test"
    )
    return [(what, PROBLEM_GOALS.get(problem, ""), measured)]


# In the order of the table. A run that not everybody makes may be missing.
NEEDED: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "default_run": lambda figures: run_rows(figures, DEFAULT_RUN),
    "nothing_to_do": nothing_rows,
    "training_speed": training_rows,
}
OPTIONAL: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "adaptation": adaptation_rows,
    "bootstrap_speed": bootstrap_rows,
    "box_augmentation": box_augmentation_rows,
    "container": container_rows,
    "full_run": lambda figures: run_rows(figures, FULL_RUN),
    "folder_run": lambda figures: run_rows(figures, FOLDER_RUN),
    "robustness_speed": robustness_rows,
    "int8_of_backbones": backbone_rows,
    **dict.fromkeys((f"problem_{problem}" for problem in PROBLEM_GOALS), problem_rows),
    "monitoring": monitoring_rows,
    "serving": serving_rows,
    "serving_soak": soak_rows,
}


def benchmarks_table(results: Path) -> str:
    """Return the table of all goals; raises KingletError if a needed result file is missing."""
    there = {name: rows for name, rows in OPTIONAL.items() if (results / f"{name}.json").is_file()}
    lines = []
    for name, rows_of in {**NEEDED, **there}.items():
        result = read_result(results, name)
        origin = [machine_in_words(result["machine"]), result["date"], f"`{result['command']}`"]
        lines += [[*row, *origin] for row in rows_of(result["figures"])]
    return markdown_table(["what", "goal", "measured", "machine", "date", "command"], lines)


def models_table(results: Path) -> str:
    """Return the table of the default run's models, the chosen one marked; raises KingletError without the file."""
    figures = read_result(results, "default_run")["figures"]
    lines = [
        [
            f"**{model['name']}** (chosen)" if model["name"] == figures["chosen"] else model["name"],
            how_made(model),
            accuracy_in_words(model["test_accuracy"]),
            f"{model['p50_ms']:.3f}",
            megabytes(model),
            f"{model['times_faster']:.1f}",
        ]
        for model in figures["models"]
    ]
    heads = ["model", "how made", "test accuracy", "p50 ms", "MB", "times faster"]
    return markdown_table(heads, lines, aligned_right=("p50 ms", "MB", "times faster"))


def peers_section(results: Path) -> str:
    """Return the section on Kinglet beside its peers, a table for each result; nothing if none was measured."""
    tables = [peers_table(read_result(results, path.stem)) for path in sorted(results.glob("peers*.json"))]
    return "\n\n".join(["## Beside its peers", *tables]) if tables else ""


def peers_table(result: dict[str, Any]) -> str:
    """Return in words how Kinglet and its peers were measured on one data set, and the table."""
    figures = result["figures"]
    loads = figures["loads"].values()
    conditions = "; ".join(f"batch {load['batch_size']} on {counted(load['threads'], 'thread')}" for load in loads)
    told = (
        f"**{figures['data']}.** "
        f"The same network, data and {figures['calibration_images']} calibration images for each, its own documented "
        f"recipe; scored on {figures['test_images']:,} test images by the same code, timed in turns ({conditions}). "
        f"Ratios are to the teacher in fp32. Who trains has {duration(figures['training_seconds'])} for it. "
        f"{machine_in_words(result['machine'])}, {result['date']}, `{result['command']}`."
    )
    heads = [
        "made by",
        "settings",
        "test accuracy",
        "points to teacher",
        "p50 ms",
        "faster",
        "images/s",
        "faster",
        "MB",
    ]
    lines = [peer_line(model) for model in figures["models"]]
    parts = [told, markdown_table(heads, lines, aligned_right=heads[4:]), beside_the_fastest_peer(figures["models"])]
    return "\n\n".join(part for part in parts if part)


def beside_the_fastest_peer(models: list[dict[str, Any]]) -> str:
    """Return in a sentence how the chosen model compares with the fastest peer that loses no more at worst.

    Nothing where no peer is as good, or the chosen model was not measured.
    """
    measured = [model for model in models if "failed" not in model]
    chosen = next((model for model in measured if model.get("chosen")), None)
    if chosen is None:
        return ""
    at_worst = chosen["difference_to_teacher"]["low"]
    as_good = [
        model for model in measured if model["tool"] != "Kinglet" and model["difference_to_teacher"]["low"] >= at_worst
    ]
    if not as_good:
        return ""
    rival = min(as_good, key=lambda model: float(model["latency"]["p50_ms"]))
    ratios = [
        (rival["latency"]["p50_ms"] / chosen["latency"]["p50_ms"], "as fast"),
        (chosen["throughput"]["images_per_second"] / rival["throughput"]["images_per_second"], "the images a second"),
        (rival["size_bytes"] / chosen["size_bytes"], "smaller"),
    ]
    told = ", ".join(f"{ratio:.1f} times {what}" for ratio, what in ratios)
    return (
        f"Of the peers that lose no more at worst than the chosen model ({-100 * at_worst:.2f} points), "
        f"{maker_in_words(rival)} is the fastest; beside it, the chosen model is {told}."
    )


def peer_line(model: dict[str, Any]) -> list[str]:
    """Return the cells of a model beside its peers, or of a peer that has none."""
    maker = maker_in_words(model)
    if "failed" in model:
        return [maker, f"no result: {model['failed']}", *[""] * 7]
    latency, throughput = model["latency"], model["throughput"]
    return [
        maker,
        settings_in_words(model),
        accuracy_in_words(model["test_accuracy"]),
        points_in_words(model["difference_to_teacher"]),
        f"{latency['p50_ms']:.3f}",
        f"{latency['times_faster']:.1f}",
        f"{throughput['images_per_second']:,.0f}",
        f"{throughput['times_faster']:.1f}",
        megabytes(model),
    ]


def maker_in_words(model: dict[str, Any]) -> str:
    """Return who made a model: Kinglet with the model's name, or a peer with the version that it is known by."""
    if model["tool"] == "Kinglet":
        return f"**Kinglet, {model['name']}** (chosen)" if model["chosen"] else f"Kinglet, {model['name']}"
    return f"{model['tool']} {next(iter(model['versions'].values()))}"


def settings_in_words(model: dict[str, Any]) -> str:
    """Return what was set, and how a runtime computes floats if that is not in fp32."""
    precision = model.get("float_precision", "f32")
    return model["settings"] if precision == "f32" else f"{model['settings']}; floats in {precision}"


def points_in_words(difference: dict[str, float]) -> str:
    """Return a difference of accuracies in percentage points, with its interval and sign."""
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def how_made(model: dict[str, Any]) -> str:
    """Return in words which step made a model, from which, and at which size and precision."""
    origin = f"{HOW_MADE.get(model['step'], model['step'])} {model['parent']}".strip()
    if model.get("control_for"):
        origin = f"control beside {model['control_for']}"
    return f"{origin}, {model['input_size']} px, {model['precision']}"


def accuracy_in_words(interval: dict[str, float]) -> str:
    """Return an accuracy in percent, with its interval where there is one."""
    value = f"{100 * interval['value']:.2f} %"
    return f"{value} ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})" if "low" in interval else value


def megabytes(model: dict[str, Any]) -> str:
    """Return the size of a model's file in MB (10^6 bytes)."""
    return f"{model['size_bytes'] / 1e6:.2f}"


def seconds_in_words(found: dict[str, Any]) -> str:
    """Return the median of some seconds with their range."""
    runs = counted(len(found["values"]), "run")
    return f"**{found['median']:.2f} s** ({found['low']:.2f} to {found['high']:.2f}, {runs})"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 8.2 s, 12 min 05 s."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]], aligned_right: Sequence[str] = ()) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    rule = ["---:" if head in aligned_right else "---" for head in heads]
    rows = [heads, rule, *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_block(text: str, name: str, content: str) -> str:
    """Return `text` with `content` between the markers called `name`.

    Raises KingletError if the text does not have both markers once, in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise KingletError(f"README.md needs {begin} and {end} once each, in this order.", "Put them back.")
    before, _, rest = text.partition(begin)
    block = f"{content}\n" if content else ""
    return f"{before}{begin}\n{block}{end}{rest.partition(end)[2]}"


def with_tables(text: str, results: Path) -> str:
    """Return README.md's text with all tables as the result files give them."""
    tables = {"benchmarks": benchmarks_table, "models": models_table, "peers": peers_section}
    for name, table_of in tables.items():
        text = with_block(text, name, table_of(results))
    return text


def update(options: argparse.Namespace) -> None:
    """Write README.md anew, or, to check, raise KingletError if that would change it."""
    try:
        text = options.readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KingletError(f"{options.readme} does not exist.", "Name another file with --readme.") from None
    wanted = with_tables(text, options.results)
    if options.check and wanted != text:
        raise KingletError(
            f"The tables of {options.readme.name} are not what the result files give.",
            "Write them with `.venv/bin/python -m benchmarks.table`.",
        )
    if wanted != text:
        write_text(options.readme, wanted)


def main() -> int:
    """Read the options, write or check; return the exit code."""
    parser = argparse.ArgumentParser(description="Write README's tables from the result files.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the tables are not up to date")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    return exit_code_of(lambda: update(options))


if __name__ == "__main__":
    sys.exit(main())
