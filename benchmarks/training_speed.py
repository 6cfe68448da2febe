"""Training images per second: Kinglet's loop beside the PyTorch loop that most people write.

What: one epoch of EfficientNet-Lite0, fp32, on the CPU, same images, input size, batch size,
augmentation (mirror, shift) and number of threads. Kinglet (`kinglet_loop.py`) takes the code path of
the step `finetune`. The opponent (`obvious_loop.py`) opens image files with Pillow in the workers of
a DataLoader; 1 and 2 workers are tried first and the better is taken. Both train at one resolution:
what Kinglet gains by starting at a lower one is not in the figure.

How: blocks in turns (Kinglet, opponent, Kinglet, opponent, ...), each in a new process; the first
steps of a block are not counted. A pair of neighbouring blocks gives a ratio; the result is the
median of the ratios with their range. Packing the images once, which Kinglet does before, is given as
`packing_seconds`, and `ratio_one_epoch_with_packing` charges all of it to a single epoch.

Data: the first 6,000 training images of Fashion-MNIST as PNG files, 48 px; and, with --folder, the
photos of a folder with one sub-folder per class, 128 px.

    .venv/bin/python -m benchmarks.training_speed --folder PHOTOS

Expected time on 2 cores: about 8 minutes for Fashion-MNIST, 10 more for 2,500 photos.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, ROOT, counted, shown_command, spread, write_result
from benchmarks.training_set import TrainingSet, images_per_second, pack_folder, write_png_folder
from kinglet.errors import KingletError
from tasks.parameters import load_parameters
from tasks.stage import exit_code_of

FASHION_MNIST = ROOT / "data" / "fashion-mnist" / "dataset.yaml"
TRIAL_STEPS = 20


def run_block(loop: str, images: Path, steps: int, workers: int | None = None) -> dict[str, Any]:
    """Run one block in a new process and return what it printed."""
    command = [sys.executable, "-m", f"benchmarks.{loop}", str(images), "--steps", str(steps)]
    if workers is not None:
        command += ["--workers", str(workers)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise KingletError(f"benchmarks.{loop} ended with exit code {done.returncode}.", "Its words are above.")
    return dict(json.loads(done.stdout))


def compare(images: TrainingSet, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of both loops on one set of images."""
    batch_size = load_parameters(ROOT / "params.yaml").finetune.batch_size
    steps = min(options.steps or sys.maxsize, len(images.paths) // batch_size)
    if steps <= options.warmup_steps:
        raise KingletError(f"{len(images.paths)} images are too few for batches of {batch_size}.", "Take more.")
    description = work / "set.json"
    images.write(description)
    threads: set[int] = set()

    def speed(loop: str, steps: int, workers: int | None = None) -> float:
        block = run_block(loop, description, steps, workers)
        threads.add(block["threads"])
        rate = images_per_second(block["step_ends"], batch_size, options.warmup_steps)
        with_workers = "" if workers is None else f", {counted(workers, 'worker')}"
        say(f"{loop}{with_workers}: {rate:.1f} images/s")
        return rate

    trials = {workers: speed("obvious_loop", min(steps, TRIAL_STEPS), workers) for workers in options.workers}
    workers = max(trials, key=lambda count: trials[count])
    pairs = [(speed("kinglet_loop", steps), speed("obvious_loop", steps, workers)) for _ in range(options.pairs)]
    if len(threads) != 1:
        raise RuntimeError(f"the loops ran on different numbers of threads: {sorted(threads)}")
    return {
        "images": len(images.paths),
        "input_size": images.size,
        "channels": images.channels,
        "batch_size": batch_size,
        "steps": steps,
        "warmup_steps": options.warmup_steps,
        "threads": threads.pop(),
        "obvious_workers": workers,
        "obvious_trials": {str(count): round(rate, 1) for count, rate in trials.items()},
        "packing_seconds": images.packing_seconds,
        "kinglet_images_per_second": spread([kinglet for kinglet, _ in pairs], 1),
        "obvious_images_per_second": spread([obvious for _, obvious in pairs], 1),
        "ratio": spread([kinglet / obvious for kinglet, obvious in pairs]),
        "ratio_one_epoch_with_packing": spread(
            [with_packing(kinglet, len(images.paths), images.packing_seconds) / obvious for kinglet, obvious in pairs]
        ),
    }


def with_packing(rate: float, n_images: int, packing_seconds: float) -> float:
    """Return images per second when one epoch over `n_images` also pays for packing them."""
    return n_images / (n_images / rate + packing_seconds)


def say(sentence: str) -> None:
    """Print to stderr what has been measured so far."""
    print(sentence, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace) -> None:
    """Measure on all sets and write the result."""
    figures = {}
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        write_png_folder(FASHION_MNIST, options.images, work / "png")
        folders = {"fashion-mnist": (work / "png", options.size)}
        if options.folder:
            folders["photos"] = (options.folder, options.folder_size)
        for name, (folder, size) in folders.items():
            images = pack_folder(folder, size, work / "packed.npy")
            say(f"{name}: {len(images.paths)} images at {size} px, packed in {images.packing_seconds:.1f} s")
            figures[name] = compare(images, work, options)
        if options.folder:
            figures["photos"]["folder"] = options.folder.resolve().name
    path = write_result(
        options.results,
        "training_speed",
        command=shown_command("training_speed", sys.argv[1:]),
        repetitions=options.pairs,
        figures=figures,
    )
    say(f"written: {path}")


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Training images per second, beside the obvious PyTorch loop.")
    parser.add_argument("--folder", type=Path, help="also measure on the photos of this folder")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of blocks (default: 5)")
    parser.add_argument("--images", type=int, default=6000, help="images of Fashion-MNIST (default: 6000)")
    parser.add_argument("--size", type=int, default=48, help="input size for Fashion-MNIST (default: 48)")
    parser.add_argument("--folder-size", type=int, default=128, help="input size for the folder (default: 128)")
    parser.add_argument("--steps", type=int, help="steps of a block (default: one epoch)")
    parser.add_argument("--warmup-steps", type=int, default=5, help="steps not counted (default: 5)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="tried for the opponent (default: 1 2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    return exit_code_of(lambda: measure(options))


if __name__ == "__main__":
    sys.exit(main())
