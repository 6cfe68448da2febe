"""When the steps run: the Prefect flow on top of DVC's graph, and the `kinglet` command."""

import os
from pathlib import Path

import tasks  # noqa: F401 - switches the telemetry of all tools off

# Prefect keeps its state in the checkout and is quiet, unless the user has said otherwise: what a
# run has to tell, the flow says itself. Prefect reads these once, when it is first imported.
for _name, _value in {
    "PREFECT_HOME": str(Path.cwd() / ".kinglet" / "prefect"),
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # The flow runs in the foreground: a temporary server has nothing to schedule.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)
