"""The commands for ONNX files, whoever made them: no params.yaml, no dvc.yaml, no flow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.diagnosis import print_diagnosis
from flows.results import models_table, number
from kinglet.errors import KingletError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that one inference may use.")]
Seconds = Annotated[float, typer.Option(min=0.01, help="Time given to the measurement of each file.")]
InputSize = Annotated[
    int | None, typer.Option(min=1, help="Edge length in pixels, for a model that leaves height and width open.")
]


def optimize(
    model: Annotated[Path, typer.Argument(help="An ONNX image classifier of any exporter, in float.")],
    data: Annotated[
        str,
        typer.Option(help="Labelled images: one sub-folder per class, a .csv or .parquet table, s3://bucket/prefix."),
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Most that the model may cost: latency_ms=2, size_mb=1, max_accuracy_drop=0.01. Repeatable."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("optimized"),
    classes: Annotated[
        Path | None, typer.Option(help="File with the classes in the order of the outputs, one per line or as JSON.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="imagenet, unit, minus-one-one, raw255, clip or caffe; found out if absent.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of pixels in [0, 1], as 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of pixels in [0, 1].")] = None,
    fit: Annotated[str | None, typer.Option(help="How images become square: stretch, crop or pad.")] = None,
    input_size: InputSize = None,
    output_name: Annotated[
        str | None, typer.Option("--output-name", help="Output with the classes, for a model that has several.")
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, help="Read at most this many images.")] = 20_000,
    threads: Threads = 1,
    seconds: Seconds = 2.0,
    overwrite: Annotated[bool, typer.Option(help="Replace a folder that holds other files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring an ONNX classifier to int8 without training, compare both files, and pack the one within the budget."""
    # Imported when it is asked for: the other commands need no onnx.
    from tasks.optimize import run
    from tasks.optimize_options import Options, described, parse_budget, parse_numbers

    limits = parse_budget(budget or [])
    result = run(
        Options(
            model=model,
            data=data,
            output=output,
            budget=limits,
            classes=classes,
            preprocessing=preprocessing,
            mean=parse_numbers("--mean", mean),
            std=parse_numbers("--std", std),
            fit=fit,
            input_size=input_size,
            output_name=output_name,
            max_images=max_images,
            threads=threads,
            seconds=seconds,
            overwrite=overwrite,
        )
    )
    print_optimized(result, output, Console(stderr=True, highlight=False, markup=False))
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
    if result["chosen"] is None:
        raise KingletError(
            result["reason"], f"Widen the limits of --budget ({described(limits)}). The files are kept in {output}."
        )


def print_optimized(result: dict[str, Any], output: Path, console: Console) -> None:
    """Print the models as a table, what was lost and why which was chosen, for people."""
    console.print(models_table(result["models"]))
    lost = result["models"][-1]["scores"]["difference_to_float"]["test"]
    console.print(
        f"int8 against float on {result['images']['test']:,} test images: {100 * lost['value']:+.2f} points "
        f"({100 * lost['low']:+.2f} to {100 * lost['high']:+.2f}).",
        soft_wrap=True,
    )
    if result["chosen"] is not None:
        console.print(f"chosen: {result['chosen']}. {result['reason']}", soft_wrap=True)
        console.print(f"bundle: {output / result['files']['bundle']}", soft_wrap=True)
    console.print(f"report: {output / result['files']['report']}", soft_wrap=True)
    for note in result["notes"]:
        console.print(f"note: {note}", soft_wrap=True)


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files of image models, or bundles.")],
    threads: Threads = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 1,
    seconds: Seconds = 2.0,
    input_size: InputSize = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency, throughput, memory and size of ONNX files, in turns, on random pixels."""
    from tasks.bench import Conditions, run

    result = run(models, Conditions(threads, batch_size, seconds, input_size))
    print_measured(result, Console(stderr=True, highlight=False, markup=False))
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))


def interval_of(model: dict[str, Any], time: str) -> str:
    """Return the interval of a time in milliseconds, as short as it can be read."""
    return f"{model[f'{time}_low_ms']:.3g}-{model[f'{time}_high_ms']:.3g}"


def print_measured(result: dict[str, Any], console: Console) -> None:
    """Print the files as a table, and under what conditions they were measured, for people."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold", min_width=12)
    for title in ("p50 ms", "p99 ms", "images/s", "memory\nMB", "size\nMB", "faster"):
        table.add_column(title, justify="right", no_wrap=True)
    first = result["models"][0]["p50_ms"]
    for model in result["models"]:
        table.add_row(
            model["name"],
            # The interval below its number: a terminal of 80 columns holds all of it.
            *(f"{model[f'{time}_ms']:.3f}\n{interval_of(model, time)}" for time in ("p50", "p99")),
            number(model["images_per_s"], ".0f"),
            number(model["peak_memory_mb"], ".0f"),
            number(model["size_bytes"] / 1e6, ".2f"),
            number(first / model["p50_ms"], ".2f", "x"),
        )
    console.print(table)
    device = result["device"]
    console.print(
        f"batch {result['batch_size']}, {result['threads']} thread{'s' if result['threads'] > 1 else ''}, "
        f"{result['seconds_per_model']:g} s per file in turns; {device['cpu']}, {device['cores']} processors granted, "
        f"onnxruntime {device['onnxruntime']}. Below each time: its {100 * result['confidence']:g} % interval.",
        soft_wrap=True,
    )


def doctor(
    model: Annotated[Path, typer.Argument(help="The int8 ONNX file, Kinglet's or anybody's.")],
    data: Annotated[str, typer.Option(help="Labelled images: a folder with one sub-folder per class, or a table.")],
    float_model: Annotated[
        Path | None, typer.Option("--float", help="The float file it was made from; a stand-in is made without it.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the file with the repairs that help to this path.")] = None,
    tolerance: Annotated[float, typer.Option(help="Accuracy that may be lost, as a share.")] = 0.005,
    max_images: Annotated[int, typer.Option(help="Look at no more than these many images.")] = 1000,
    classes: Annotated[
        Path | None, typer.Option(help="Names of the outputs in their order; by default as the file says, or sorted.")
    ] = None,
    preprocessing: Annotated[str | None, typer.Option(help="Scale of the pixels, as for optimize.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of pixels in [0, 1]: one number or three.")] = None,
    std: Annotated[str | None, typer.Option(help="Their standard deviation.")] = None,
    fit: Annotated[str | None, typer.Option(help="stretch, crop or pad.")] = None,
    output_name: Annotated[str | None, typer.Option("--output-name", help="Which of several outputs.")] = None,
    input_size: InputSize = None,
    threads: Threads = 1,
    seconds: Seconds = 0.5,
    as_json: AsJson = False,
) -> None:
    """Find why an int8 file lost accuracy or speed, and what each repair costs. Exit code 1 for critical findings."""
    from tasks.doctor import Request, diagnose
    from tasks.optimize_options import parse_numbers

    result = diagnose(
        Request(
            model=model,
            data=data,
            float_model=float_model,
            write=write,
            classes=classes,
            preprocessing=preprocessing,
            mean=parse_numbers("--mean", mean),
            std=parse_numbers("--std", std),
            fit=fit,
            output_name=output_name,
            input_size=input_size,
            tolerance=tolerance,
            max_images=max_images,
            threads=threads,
            seconds=seconds,
        )
    )
    print_diagnosis(result, Console(stderr=True, highlight=False))
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))
    if any(finding["severity"] == "critical" for finding in result["findings"]):
        raise typer.Exit(1)
