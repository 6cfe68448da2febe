"""Logs: one JSON object per line on stderr. A log that cannot be written never costs an answer."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
        self.write_all([(event, time.time(), fields)])

    def write_all(self, events: Sequence[tuple[str, float, Mapping[str, Any]]]) -> None:
        """Write several events, each with its time in seconds since 1970 and its fields."""
        try:
            lines = [
                orjson.dumps(
                    {"time": datetime.fromtimestamp(seconds, UTC), "event": event, **fields},
                    default=str,
                    option=orjson.OPT_APPEND_NEWLINE,
                )
                for event, seconds, fields in events
            ]
            self._write(b"".join(lines))
        except (OSError, ValueError, TypeError):
            for _ in events:
                self.lost()

    def _to_descriptor(self, lines: bytes) -> None:
        descriptor = self._stream.fileno()
        while lines:
            lines = lines[os.write(descriptor, lines) :]

    def _to_stream(self, lines: bytes) -> None:
        self._stream.write(lines.decode())
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
