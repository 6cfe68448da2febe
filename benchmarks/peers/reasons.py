"""Why a peer has no figures: said in its row, while the others go on."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

LONGEST_REASON = 200
Result = TypeVar("Result")


class PeerError(Exception):
    """A peer could not be installed or did not run; the message is the reason that its row shows."""


def each_or_reason(names: Sequence[str], action: Callable[[str], Result], failed: dict[str, str]) -> dict[str, Result]:
    """Return {name: action(name)} of those that failed neither before nor now; the reasons go into `failed`."""
    results = {}
    for name in names:
        if name in failed:
            continue
        try:
            results[name] = action(name)
        except PeerError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed[name] = str(error)
    return results


def reason_in(log: Path) -> str:
    """Return the last line of a log that says something, as a sentence, without the paths of this machine."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if re.match(r"(ERROR:|error:|[A-Za-z_.]*(Error|Exception|Failure)\b)", line)]
    last = ([line for line in lines if line] or ["it said nothing"])[-1]
    reason = re.sub(r"(https?|file)://\S+", "an address", (errors or [last])[-1])
    reason = re.sub(r"(/[\w.+-]+){2,}/", "", reason)
    shortened = reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1].rstrip() + "…"
    return shortened if shortened.endswith((".", "…")) else shortened + "."
