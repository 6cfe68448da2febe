"""Step `track`: follow what the teacher and the chosen model found in the test sequences, and score both."""

from __future__ import annotations

import sys

from kinglet.atomic import write_json
from tasks.artifacts import TRACK, say_why_empty
from tasks.parameters import Parameters
from tasks.stage import run_stage

RESULTS = TRACK / "results"
SCORES = TRACK / "scores.json"


def run(parameters: Parameters) -> None:
    """Write scores.json, and into results/ the tracks, a video and a strip of frames of every test sequence.

    Where images are no frames of sequences, scores.json says so, and a note in results/.
    """
    if parameters.problem != "tracking":
        reason = f"problem is {parameters.problem}: images are no frames of sequences, and nothing is followed."
        print(f"note: {reason}", file=sys.stderr)
        say_why_empty(RESULTS, reason)
        write_json(SCORES, {"reason": reason, "models": {}})
        return
    # Here, as a run of another problem needs nothing of it.
    from tasks.tracked_test_sequences import track_test_sequences

    write_json(SCORES, track_test_sequences(parameters, RESULTS))


if __name__ == "__main__":
    run_stage(run)
