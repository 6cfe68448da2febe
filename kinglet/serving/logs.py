"""Logs: one JSON object per line on stderr. A log that cannot be written never costs an answer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson


class JsonLog:
    """Writes events as lines of JSON."""

    def __init__(self, stream: TextIO | None = None, lost: Callable[[], Any] = lambda: None) -> None:
        """stream: stderr if None. lost: called for every line that could not be written, as on a full disk."""
        self._stream = stream if stream is not None else sys.stderr
        self.lost = lost
        # Straight to the descriptor where there is one: two layers of buffers would be flushed for every line.
        self._write = self._to_descriptor if stream is None else self._to_stream

    def write(self, event: str, **fields: Any) -> None:
        """Write one event with its time (UTC) and its fields."""
        line = {"time": datetime.now(UTC), "event": event, **fields}
        try:
            self._write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        except (OSError, ValueError, TypeError):
            self.lost()

    def _to_descriptor(self, line: bytes) -> None:
        os.write(self._stream.fileno(), line)

    def _to_stream(self, line: bytes) -> None:
        self._stream.write(line.decode())
        self._stream.flush()


class JsonHandler(logging.Handler):
    """Passes what libraries log on as events of the same log."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        fields: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        self._log.write("log", message=record.getMessage(), **fields)


def send_logging_to(log: JsonLog) -> None:
    """Let Python's logging go to `log`: Kinglet's from INFO on, everybody else's from WARNING on."""
    root = logging.getLogger()
    root.handlers[:] = [JsonHandler(log)]
    root.setLevel(logging.WARNING)
    logging.getLogger("kinglet").setLevel(logging.INFO)
