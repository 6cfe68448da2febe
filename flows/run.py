"""The process in which `kinglet run` runs the flow."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from flows.graph import read_graph
from flows.processes import ALIVE_PIPE, end_members, only_run, release_stale_path_locks
from flows.server import OWN_SERVER, wait_for_server
from kinglet.atomic import write_json
from kinglet.errors import KingletError
from tasks.artifacts import WORKSPACE
from tasks.stage import FLOW_PID, USER_ERROR_EXIT, exit_code_of, print_error

# Where a run leaves what became of its stages, for the command that started it.
OUTCOMES = WORKSPACE / "outcomes.json"


def end_with_command() -> None:
    """End this process and all that it started as soon as the command that started it is gone."""
    number = os.environ.pop(ALIVE_PIPE, "")
    if not number:
        return

    def watch() -> None:
        os.read(int(number), 1)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stderr.fileno())
        end_members(int(os.environ[FLOW_PID]))
        release_stale_path_locks(Path.cwd())
        os._exit(1)

    threading.Thread(target=watch, name="end-with-command", daemon=True).start()


def unchanged_stages() -> dict[str, str]:
    """Return {stage: "unchanged"} if no stage has anything to do, else nothing."""
    with only_run(Path.cwd()):
        release_stale_path_locks(Path.cwd())
        stages = read_graph()
    return (
        {} if any(stage.changed for stage in stages) else dict.fromkeys((stage.name for stage in stages), "unchanged")
    )


def run_here() -> None:
    """Run the flow in the current folder and write its outcomes.

    Raises KingletError with a sentence for all that a user can mend.
    """
    # While our own server starts there is time to look. If no stage has anything to do, nobody would ever
    # see the task runs on a server that is gone in a second: a user's own server gets them all the same.
    outcomes = unchanged_stages() if OWN_SERVER in os.environ else {}
    if not outcomes:
        # Seconds of imports that a run with nothing to do is spared.
        from flows.retrain import quiet_prefect, retrain
        from flows.stages import StageBusyError, StageFailedError

        quiet_prefect()
        wait_for_server()
        try:
            outcomes = retrain()
        except StageBusyError as error:
            hint = "Wait until it has ended, then run again: finished steps are kept."
            raise KingletError(str(error), hint) from None
        except StageFailedError as error:
            print_error(str(error), "Mend what it says above and run again: finished steps are kept.")
            sys.exit(error.exit_code if error.exit_code > 0 else USER_ERROR_EXIT)
    write_json(OUTCOMES, outcomes)


def main() -> int:
    """Run the flow as a process; return its exit code."""
    end_with_command()
    OUTCOMES.unlink(missing_ok=True)
    return exit_code_of(run_here)


if __name__ == "__main__":
    sys.exit(main())
