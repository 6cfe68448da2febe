"""The verdict of the last run, for the commands that act on it: read, checked to be of this bundle, acted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinglet.atomic import read_json
from kinglet.errors import KingletError
from tasks.artifacts import BUNDLE, VERDICT
from tasks.champion import bundle_digest, open_champion, replace_champion
from tasks.gate import champion_digest, policy_of
from tasks.parameters import Parameters

ACCEPTED = "accepted"


def read_verdict(parameters: Parameters) -> dict[str, Any]:
    """Return the content of verdict.json.

    Raises KingletError if there is none, or if bundle, champion or policy are no longer those that it is about.
    """
    if not VERDICT.is_file():
        raise KingletError(f"{VERDICT} does not exist: the gate has not judged.", "Run `dvc repro`.")
    verdict: dict[str, Any] = read_json(VERDICT)
    now = {
        "the bundle": (verdict["challenger"]["bundle"], bundle_digest(BUNDLE)),
        "the champion": (verdict["champion"]["bundle"], champion_digest(parameters)),
        "the policy": (verdict["policy"], policy_of(parameters)),
    }
    for what, (judged, present) in now.items():
        if judged != present:
            raise KingletError(f"{VERDICT} is out of date: {what} changed since.", "Run `dvc repro gate`.")
    return verdict


def promote(parameters: Parameters) -> Path:
    """Put the accepted bundle into the champion's folder; return the folder.

    Raises KingletError if the gate refused it, or the verdict is out of date.
    """
    verdict, folder = read_verdict(parameters), Path(parameters.gate.champion)
    if verdict["verdict"] != ACCEPTED:
        raise KingletError(f"Not promoted. {verdict['paragraph']}", "`kinglet gate` shows every check.")
    open_champion(folder, parameters.network)
    replace_champion(BUNDLE, folder)
    return folder
