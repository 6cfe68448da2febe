"""What can be set: as an option, as an environment variable, or left at a default that is safe on a small machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kinglet.errors import KingletError
from kinglet.runtime.processors import available_processors

PREFIX = "KINGLET_"
LOGS = ("all", "errors", "none")
KEPT_ANSWERS = ("all", "none")


def setting(default: Any, words: str, low: float | None = None, high: float | None = None) -> Any:
    """Return a field with its meaning and the range of its values."""
    return field(default=default, metadata={"words": words, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """How a bundle is served. Each field is the option `--field-name` and the variable `KINGLET_FIELD_NAME`."""

    bundle: str = setting("", "folder of the bundle, as `dvc repro bundle` makes it")
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = setting(8000, "port to listen on; 0 takes any that is free", 0, 65535)
    name: str = setting("", "name of the model in /v2; that of the model card if empty")
    threads: int = setting(1, "threads that one inference may use; 0 for all processors", 0, 1024)
    workers: int = setting(0, "inferences side by side; 0 for as many as the processors allow", 0, 1024)
    queue: int = setting(64, "requests that may wait for a worker before others get 503", 0, 1_000_000)
    batch_size: int = setting(1, "images of several requests computed together at most; 1: no batching", 1, 4096)
    batch_wait_ms: float = setting(2.0, "how long the first image of a batch waits for others", 0, 1000)
    max_body_mb: float = setting(10.0, "largest body in MB (10^6 bytes)", 0.001, 4000)
    max_held_mb: float = setting(160.0, "largest sum of all bodies that are in the server at once, in MB", 0.001, 1e6)
    max_megapixels: float = setting(25.0, "largest image in millions of pixels, judged before it is decoded", 1e-6, 1e4)
    max_images: int = setting(32, "images in one request at most", 1, 100_000)
    max_frames: int = setting(3000, "frames of a clip or video in one request at most", 1, 1_000_000)
    max_connections: int = setting(512, "open connections at most", 1, 1_000_000)
    body_timeout: float = setting(10.0, "seconds within which headers, and then a body, must have arrived", 0.01, 3600)
    timeout: float = setting(10.0, "seconds within which an answer must be there, waiting included", 0.01, 3600)
    keep_alive: float = setting(30.0, "seconds that an idle connection stays open", 0.01, 3600)
    drain_delay: float = setting(0.0, "seconds between SIGTERM and closing the port: /v2/health/ready says no", 0, 3600)
    drain_timeout: float = setting(20.0, "seconds that running requests have left after the port was closed", 0.1, 3600)
    log: str = setting("all", "requests that are logged: all, errors or none")
    monitor: str = setting("", "folder or s3://BUCKET/PREFIX for sketches of images and answers, never images")
    monitor_interval: float = setting(300.0, "seconds that one sketch covers", 0.1, 86_400)
    monitor_sample: int = setting(50, "answers of an interval kept with all their probabilities at most", 0, 1000)
    monitor_answers: str = setting("none", "answers kept beside the sketches for labels to come: all or none")

    @property
    def max_body_bytes(self) -> int:
        """Largest body in bytes."""
        return int(self.max_body_mb * 1e6)

    @property
    def max_held_bytes(self) -> int:
        """Largest sum of all bodies in bytes."""
        return int(max(self.max_held_mb, self.max_body_mb) * 1e6)

    @property
    def max_pixels(self) -> int:
        """Largest width x height."""
        return int(self.max_megapixels * 1e6)

    @property
    def threads_each(self) -> int:
        """Threads of one inference, at least 1."""
        return self.threads or available_processors()

    @property
    def workers_in_all(self) -> int:
        """Inferences side by side, at least 1: all processors shared out, however many the container is granted."""
        return self.workers or max(1, available_processors() // self.threads_each)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str], program: str) -> Settings:
    """Return the settings of a command line over those of the environment over the defaults.

    Raises KingletError for a value that is no number, out of its range or unknown, or if no bundle is named.
    """
    parser = argument_parser(program)
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for item in fields(Settings):
        option, variable = f"--{item.name.replace('_', '-')}", f"{PREFIX}{item.name.upper()}"
        if given.get(item.name) is not None:
            values[item.name] = converted(item, given[item.name], "BUNDLE" if item.name == "bundle" else option)
        elif environment.get(variable):
            values[item.name] = converted(item, environment[variable], variable)
    settings = Settings(**values)
    if not settings.bundle:
        raise KingletError("No bundle is named.", f"Write {program} artifacts/bundle, or set {PREFIX}BUNDLE.")
    if settings.log not in LOGS:
        raise KingletError(f"log is {settings.log!r}; known are {', '.join(LOGS)}.", "Leave it out for all.")
    if settings.monitor_answers not in KEPT_ANSWERS:
        raise KingletError(
            f"monitor_answers is {settings.monitor_answers!r}; known are {', '.join(KEPT_ANSWERS)}.",
            "Leave it out for none.",
        )
    return settings


def argument_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser whose options are the fields of `Settings`; values stay text."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve a bundle over HTTP: /predict, the Open Inference Protocol under /v2, /metrics, a page at /.",
        epilog=f"Every option is also an environment variable: --max-body-mb is {PREFIX}MAX_BODY_MB.",
        allow_abbrev=False,
    )
    for item in fields(Settings):
        words = item.metadata["words"]
        if item.name == "bundle":
            parser.add_argument("bundle", nargs="?", help=words)
        else:
            shown = f" (default: {item.default})" if item.default != "" else ""
            parser.add_argument(f"--{item.name.replace('_', '-')}", metavar=str(item.type).upper(), help=words + shown)
    return parser


def converted(item: Any, text: str, origin: str) -> Any:
    """Return a field's value from its text; raises KingletError that names where it came from."""
    if item.type == "str":
        return text
    kind: type[int] | type[float] = int if item.type == "int" else float
    low, high = item.metadata["low"], item.metadata["high"]
    try:
        value = kind(text)
    except ValueError:
        value = None
    # Not a number, in both senses: NaN compares false with everything.
    if value is None or not low <= value <= high:
        noun = "a whole number" if kind is int else "a number"
        hint = ""
        if origin == f"{PREFIX}PORT" and "://" in text:
            hint = "Kubernetes sets it for a service called kinglet: set enableServiceLinks: false, or use --port."
        raise KingletError(f"{origin} is {text!r}; it takes {noun} from {low:g} to {high:g}.", hint)
    return value


def bundle_of(settings: Settings) -> Path:
    """Return the bundle's folder."""
    return Path(settings.bundle)
