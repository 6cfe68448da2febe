"""The `kinglet clips` commands: videos to learn from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

clips = typer.Typer(help="Make clips to try video with.", no_args_is_help=True)


@clips.callback()
def videos_to_learn_from() -> None:
    """Make clips to try video with."""


@clips.command()
def generate(
    images: Annotated[str, typer.Argument(help="Pictures: a folder, a table, or a data set's description (.yaml).")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    per_class: Annotated[int, typer.Option("--per-class", min=1, help="Videos of each of the nine classes.")] = 100,
    size: Annotated[int, typer.Option("--size", min=32, max=512, help="Edge of the frames in pixels.")] = 64,
    rate: Annotated[float, typer.Option("--frames-per-second", min=1, max=120)] = 12,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that holds other files.")] = False,
) -> None:
    """Make videos of pictures that move left, right, up or down, slowly or fast, or stay.

    The folder says that it is made, and so does every report on it.
    """
    # Here, as it needs what decodes pictures and encodes videos.
    from tasks.generate_clips import Request, run

    made = run(Request(images, out, per_class, size + size % 2, rate, seed, overwrite))
    print(out)
    print(
        f"{made['videos']} videos of {len(made['classes'])} classes. Next: .venv/bin/kinglet init {out}",
        file=sys.stderr,
    )
