"""The commands around tracks: `kinglet track`, and `kinglet tracks` for those that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kinglet.errors import KingletError

if TYPE_CHECKING:
    from kinglet.tracking.association import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
AssociationName = Annotated[str, typer.Option("--association", help="How boxes become tracks: bytetrack or sort.")]
SureScore = Annotated[float, typer.Option(min=0, max=1, help="Score from which a box may begin a track.")]
LowestScore = Annotated[float, typer.Option(min=0, max=1, help="Score from which ByteTrack goes on with a track.")]
MinFrames = Annotated[
    int | None, typer.Option(min=1, help="Frames in which a track is found before it is shown; the association's own.")
]
MaxLost = Annotated[
    int | None, typer.Option(min=0, help="Frames without being found after which a track ends; the association's own.")
]
MinIou = Annotated[
    float | None, typer.Option(min=0, max=1, help="Overlap from which a box may belong to a track; likewise.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the detector; all that are granted if left out.")]
# The columns of the tables, and how each score is printed.
COLUMNS = {
    "MOTA": "mota",
    "IDF1": "idf1",
    "HOTA": "hota",
    "recall": "recall",
    "precision": "precision",
    "false": "false_positives",
    "missed": "misses",
    "switches": "id_switches",
}
WORDS = {"mota": "MOTA", "idf1": "IDF1", "hota": "HOTA"}

tracks = typer.Typer(help="Score tracks, and see what a model's compression does to them.", no_args_is_help=True)


@tracks.callback()
def tracks_that_are_there() -> None:
    """Score tracks, and see what a model's compression does to them."""


def track(
    bundle: Annotated[Path, typer.Argument(help="The bundle of a detector.")],
    source: Annotated[Path, typer.Argument(help="A video, a folder with one image per frame, or a sequence.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; tracks/NAME if left out.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Frames per second of a folder of frames.")] = None,
    association: AssociationName = "bytetrack",
    sure_score: SureScore = 0.5,
    lowest_score: LowestScore = 0.1,
    min_frames: MinFrames = None,
    max_lost: MaxLost = None,
    min_iou: MinIou = None,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a folder that holds other files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow the objects of a video: a MOTChallenge file, the video with them drawn, and a strip of frames."""
    # Here, as it needs what reads and decodes images, which no other command waits for.
    from tasks.track_video import Request, run

    output = out or Path("tracks") / (source.stem if source.suffix else source.resolve().name)
    settings = settings_of(association, sure_score, lowest_score, min_frames, max_lost, min_iou)
    result = run(Request(bundle, source, output, settings, rate, threads, overwrite))
    print_tracked(result, output, Console(stderr=True, highlight=False, markup=False))
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))


def settings_of(
    association: str,
    sure_score: float,
    lowest_score: float,
    min_frames: int | None,
    max_lost: int | None,
    min_iou: float | None,
) -> Settings:
    """Return the settings; raises KingletError for an association that does not exist."""
    from kinglet.tracking.association import ASSOCIATIONS, Settings

    if association not in ASSOCIATIONS:
        raise KingletError(f"--association {association}: unknown; known: {', '.join(ASSOCIATIONS)}.")
    return Settings(association, sure_score, lowest_score, min_frames, max_lost, min_iou)


def print_tracked(result: dict[str, Any], output: Path, console: Console) -> None:
    """Print what was found and how fast, for people."""
    console.print(
        f"{result['identities']:,} tracks with {result['boxes']:,} boxes in {result['frames']:,} frames.",
        soft_wrap=True,
    )
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in result["ms_per_frame"].items())
    speed = f"{result['frames_per_second']:.1f} frames per second (ms per frame: {parts})"
    if result["real_time_factor"] is None:
        console.print(f"{speed}; --rate says how many the camera takes.", soft_wrap=True)
    else:
        console.print(
            f"{speed}, of a video with {result['video_frames_per_second']:g}: real-time factor "
            f"{result['real_time_factor']:.2f}.",
            soft_wrap=True,
        )
    if not result["is_even"]:
        console.print("note: the video's frames are not as far apart; each is taken at its own time.", soft_wrap=True)
    for name, file in result["files"].items():
        console.print(f"{name}: {output / file}", soft_wrap=True)


@tracks.command()
def score(
    truth: Annotated[Path, typer.Argument(help="True tracks: a gt.txt, or a folder of sequences with gt/gt.txt.")],
    found: Annotated[
        Path, typer.Argument(metavar="TRACKS", help="Tracks: a file, or a folder with NAME.txt for each sequence.")
    ],
    as_json: AsJson = False,
) -> None:
    """Hold tracks against true ones: MOTA, IDF1, HOTA and what they are made of."""
    from tasks.track_scores import ALL
    from tasks.track_scores import score as scores_of

    result = scores_of(truth, found)
    console = Console(stderr=True, highlight=False, markup=False)
    rows = [*result["sequences"].items(), *([(ALL, result[ALL])] if len(result["sequences"]) > 1 else [])]
    console.print(scores_table(rows))
    print_intervals(result[ALL]["intervals"], result["interval_over"], console)
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))


@tracks.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle that is the measure, the teacher's.")],
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The bundle that is held against it.")],
    sequences: Annotated[Path, typer.Argument(help="A folder of sequences with gt/gt.txt and frames, or one.")],
    association: AssociationName = "bytetrack",
    sure_score: SureScore = 0.5,
    lowest_score: LowestScore = 0.1,
    min_frames: MinFrames = None,
    max_lost: MaxLost = None,
    min_iou: MinIou = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Follow the same sequences with two detectors: what compression does to the tracks, with paired intervals."""
    from tasks.track_scores import ALL
    from tasks.track_scores import compare as compared

    settings = settings_of(association, sure_score, lowest_score, min_frames, max_lost, min_iou)
    result = compared((first, second), sequences, settings, threads)
    console = Console(stderr=True, highlight=False, markup=False)
    for model, of_model in zip(result["models"], result["scores"], strict=True):
        console.print(model, soft_wrap=True)
        console.print(scores_table([*of_model["sequences"].items(), (ALL, of_model[ALL])]))
    console.print(
        f"{result['models'][1]} minus {result['models'][0]}, on {result['n_frames']:,} frames of "
        f"{result['n_sequences']} sequences:",
        soft_wrap=True,
    )
    values, intervals = result["difference"]["values"], result["difference"]["intervals"]
    for name, value in values.items():
        console.print(f"  {WORDS[name]} {100 * value:+.2f} points{in_brackets(intervals[name], '+.2f')}")
    console.print(how_made(result["interval_over"]), soft_wrap=True)
    if as_json:
        print(json.dumps(result, indent=2, sort_keys=True))


def scores_table(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    """Return scores by sequence as a table: shares in percent, and counts."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("sequence", overflow="fold", min_width=12)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for name, scores in rows:
        numbers = [scores[column] for column in COLUMNS.values()]
        table.add_row(name, *(f"{100 * value:.1f}" if isinstance(value, float) else f"{value:,}" for value in numbers))
    return table


def print_intervals(intervals: dict[str, Any], over: str, console: Console) -> None:
    """Print the intervals of the scores of all sequences together, and what they come from."""
    for name, found in intervals.items():
        if found is not None:
            console.print(f"{WORDS[name]} {100 * found['value']:.1f}{in_brackets(found, '.1f')}")
    console.print(how_made(over), soft_wrap=True)


def in_brackets(interval: dict[str, float] | None, digits: str) -> str:
    """Return the ends of an interval in percent; "" where there is none."""
    return "" if interval is None else f" ({100 * interval['low']:{digits}} to {100 * interval['high']:{digits}})"


def how_made(over: str) -> str:
    """Return in a sentence what intervals come from, and what they do not say."""
    from kinglet.tracking.intervals import BLOCKS, FEWEST_SEQUENCES, SEQUENCES

    if over == SEQUENCES:
        return "95 % intervals, by resamples of whole sequences."
    few = f"below {FEWEST_SEQUENCES} sequences"
    if over == BLOCKS:
        return f"95 % intervals, by leaving out windows of frames ({few}): they say nothing about other sequences."
    return f"No intervals: {few}, windows of frames are left out, and there are too few frames for that."
