"""The steps of the pipeline, one file each; none of the tools they use reports home."""

import os

# Here as well as in the Makefile, so that `dvc repro` alone is as silent. ONNX Runtime has no such
# variable: kinglet.runtime switches its telemetry off where it opens a session.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)
