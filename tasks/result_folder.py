"""The folder that a command writes its results into, and replaces as a whole: not where something else lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kinglet.atomic import read_json
from kinglet.errors import KingletError


@dataclass(frozen=True)
class ResultFolder:
    """A folder for results, as a person named it. option: by which. made_by: the command that writes there.

    result: the file in it that holds `{"made_by": made_by, ...}` once the command is done.
    """

    path: Path
    option: str
    made_by: str
    result: str

    def refuse_what_must_stay(self, inputs: Sequence[Path], *, overwrite: bool) -> None:
        """Raise KingletError if the folder holds something that must not be replaced.

        inputs: what the command reads; nor may the folder that it was typed in lie there. overwrite: other files than
        an earlier result may go.
        """
        called, folder = f"{self.option} {self.path}", self.path.resolve()
        for path in (Path.cwd(), *(path.resolve() for path in inputs)):
            if path == folder or folder in path.parents:
                raise KingletError(
                    f"{called}: {path} lies in it, and the folder is replaced as a whole.", "Name a folder of its own."
                )
        if folder.is_file():
            raise KingletError(f"{called} is a file.", "Name a folder.")
        if folder.is_dir() and any(folder.iterdir()) and not overwrite and not self.is_own():
            raise KingletError(
                f"{called} holds files that `{self.made_by}` did not write.",
                "Name another folder, or say --overwrite to replace it as a whole.",
            )

    def is_own(self) -> bool:
        """Return whether the folder is the result of an earlier call."""
        try:
            content = read_json(self.path / self.result)
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("made_by") == self.made_by
