"""Kinglet's server: throughput beside a bare loop, latency at 80 % load, other servers, a soak.

What: requests per second at batch 1, JPEG in, class out, as a share of what a bare loop of decoding, preprocessing and
`session.run` reaches; the 99th percentile at 80 % of that load beside the loop's at 80 % of its own; the same of
LitServe and BentoML serving the same ONNX file; minutes of mixed load with bad requests, and the memory meanwhile.
How: loop, server and peers one at a time on the same one core, in turns; the load comes from another core. What each
can do is measured before and after the seconds at 80 % of it: of a processor that has become slower meanwhile more was
asked than 80 %, so the 99th percentile is of the rounds in which loop and server kept their speed within a tenth, and
the row says how many did. Peers are installed into environments of their own.

    .venv/bin/python -m benchmarks.serving --bundle artifacts/bundle

Expected time: 8 minutes, 3 of them the soak; `--rounds 0 --soak-seconds 1800` for half an hour of it alone.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.peers.environments import environment, peer_settings
from benchmarks.peers.reasons import PeerError, reason_in
from benchmarks.results import RESULTS, ROOT, shown_command, spread, write_result
from benchmarks.serving.load import Load, http_request, run_load
from benchmarks.serving.soak import requests_of, soak
from benchmarks.tables.service import SERVERS
from kinglet.errors import KingletError
from kinglet.runtime import bundles
from kinglet.serving.served_model import open_model
from tasks.stage import exit_code_of

REQUIREMENTS = Path(__file__).parent / "peers"
CONNECTIONS = 4
LOAD_SHARE = 0.8
# A processor that others share changes its speed; by more than this, 80 % are no longer that.
SAME_SPEED = 0.1
LOOP_FIGURES = ("per_second", "p99_ms", "loaded_p99_ms", "cpu_ms_each")
START_SECONDS = 60.0


@contextmanager
def started(command: Sequence[str], core: int, port: int, log: Path, settings: dict[str, str]) -> Iterator[int]:
    """Yield the process id of a server on one core once it listens; end it, and all that it started, afterwards.

    Raises PeerError if it ends or does not listen in time.
    """
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=settings,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (this process has one thread)
        )
        try:
            wait_for(process, port, log)
            yield process.pid
        finally:
            end(process)


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once a port answers; raises PeerError if its process ends or takes too long."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise PeerError(f"it does not start: {reason_in(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(1.0)  # some listen before their workers are there
            return
    raise PeerError(f"it does not listen after {START_SECONDS:g} s.")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its session."""
    for signal_number, patience in ((15, 10.0), (9, 10.0)):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def bare_loop(bundle: Path, images: Path, core: int, seconds: float) -> dict[str, float]:
    """Return {per_second, p99_ms, loaded_p99_ms, per_second_again, cpu_ms_each} of the loop without HTTP.

    loaded: with as many images arriving as the servers get requests, in shares of what they can do, so that some wait
    for those before them. again: after that.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving.bare_loop",
        str(bundle),
        str(images),
        "--seconds",
        str(seconds),
        "--load",
        str(LOAD_SHARE),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def command_of(server: str, options: argparse.Namespace, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of a server; raises PeerError if its environment cannot be made."""
    settings = {**peer_settings(), "BENCHMARK_BUNDLE": str(options.bundle.resolve()), "BENTOML_DO_NOT_TRACK": "True"}
    if server == "kinglet":
        command = [
            sys.executable,
            "-m",
            "kinglet.serving",
            str(options.bundle),
            "--port",
            str(port),
            "--log",
            options.log,
        ]
        return command, settings
    python = environment(options.environments, server, REQUIREMENTS)
    module = f"benchmarks.serving.peers.{server}_server"
    if server == "litserve":
        return [str(python), "-m", module, str(options.bundle), str(port)], settings
    serve = ["-m", "bentoml", "serve", f"{module}:Classifier", "--host", "127.0.0.1", "--port", str(port)]
    return [str(python), *serve], settings


def requests_for(server: str, contents: Sequence[bytes]) -> list[bytes]:
    """Return JPEG files as requests that a server takes."""
    if server == "litserve":
        bodies = [json.dumps({"image": base64.b64encode(content).decode()}).encode() for content in contents]
        return [http_request(body, "application/json") for body in bodies]
    return [http_request(content) for content in contents]


@dataclass(frozen=True)
class Round:
    """What a server did in a round: as fast as it could, at 80 % of that, and as fast as it could again."""

    fastest: Load
    steady: Load
    again: Load

    @property
    def kept_its_speed(self) -> bool:
        """Whether 80 % of what it could do before were 80 % of what it could do after."""
        return same_speed(self.fastest.per_second, self.again.per_second)


def same_speed(before: float, after: float) -> bool:
    """Return whether two rates differ by a tenth at most."""
    return abs(after / before - 1) <= SAME_SPEED


def measure_server(
    server: str, options: argparse.Namespace, requests: Sequence[bytes], cores: tuple[int, int], folder: Path
) -> Round:
    """Return what a server does with load.

    Raises PeerError if it does not start, KingletError for an answer that is not good.
    """
    port = free_port()
    command, settings = command_of(server, options, port)
    with started(command, cores[0], port, folder / f"{server}.log", settings) as pid:
        run_load(port, requests, min(1.0, options.seconds), CONNECTIONS)  # warm
        before = cpu_seconds(pid)
        fastest = run_load(port, requests, options.seconds, CONNECTIONS)
        if not fastest.milliseconds:
            raise KingletError(f"There was no answer from {server} within {options.seconds:g} s.", "Look at the load.")
        fastest.cpu_ms_each = 1000 * (cpu_seconds(pid) - before) / len(fastest.milliseconds)
        before = waited_seconds(pid)
        steady = run_load(port, requests, options.seconds, CONNECTIONS * 4, LOAD_SHARE * fastest.per_second)
        steady.waited_share = (waited_seconds(pid) - before) / options.seconds
        again = run_load(port, requests, options.seconds, CONNECTIONS)
    return Round(fastest, steady, again)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and all that it started have used."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def waited_seconds(pid: int) -> float:
    """Return how long the main thread of a process was ready to run while others had its core.

    Source: Linux, Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def measure(options: argparse.Namespace) -> None:
    """Measure and write the result."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise KingletError("One processor is not enough: the load would take the server's.", "Run it on two or more.")
    cores = processors[0], processors[1]
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images"
        contents = images_to_send(options)
        images.mkdir()
        for number, content in enumerate(contents):
            (images / f"{number:03}.jpg").write_bytes(content)
        found: dict[str, dict[str, Any]] = {}
        if options.rounds:
            facts = {"images": len(contents), "bytes": int(np.median([len(item) for item in contents]))}
            found["serving"] = {**facts, **in_turns(options, contents, images, cores, folder)}
        if options.soak_seconds:
            found["serving_soak"] = measure_soak(options, contents, cores, folder)
    command = shown_command("serving", sys.argv[1:])
    for name, figures in found.items():
        print(write_result(options.results, name, command=command, repetitions=options.rounds or 1, figures=figures))


def images_to_send(options: argparse.Namespace) -> list[bytes]:
    """Return JPEG files: those of --images, else the bundle's golden ones."""
    if not options.images:
        with np.load(options.bundle / bundles.GOLDEN) as golden:
            return [jpeg(pixels) for pixels in golden["images"]]
    contents = [path.read_bytes() for path in sorted(options.images.rglob("*.jpg"))[:100]]
    if not contents:
        raise KingletError(f"{options.images} holds no .jpg file.", "Name another folder with --images.")
    return contents


def jpeg(pixels: Any) -> bytes:
    """Return uint8 pixels (height, width, 1 or 3) as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def in_turns(
    options: argparse.Namespace, contents: Sequence[bytes], images: Path, cores: tuple[int, int], folder: Path
) -> dict[str, Any]:
    """Return the figures of the loop and of every server, measured one after the other, several times."""
    loops: list[dict[str, float]] = []
    rounds: dict[str, list[Round]] = {server: [] for server in ("kinglet", *options.peers)}
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        loops.append(bare_loop(options.bundle, images, cores[0], options.seconds))
        for server, found in rounds.items():
            if server in failed:
                continue
            try:
                found.append(measure_server(server, options, requests_for(server, contents), cores, folder))
            except (PeerError, KingletError) as error:
                if server == "kinglet":
                    raise
                failed[server] = str(error)
    own = rounds["kinglet"]
    figures: dict[str, Any] = {
        "bare_loop": {key: spread([loop[key] for loop in loops]) for key in LOOP_FIGURES},
        "kinglet": {**server_figures(own), **beside_loop(own, loops)},
        "peers": {},
    }
    for server in options.peers:
        if server in failed:
            figures["peers"][server] = {"failed": failed[server]}
            continue
        peer = rounds[server]
        figures["peers"][server] = {
            **server_figures(peer),
            "version": version_in(options, server),
            "times_kinglet": spread(
                [ours.fastest.per_second / theirs.fastest.per_second for ours, theirs in zip(own, peer, strict=True)]
            ),
            "times_kinglet_cpu": spread(
                [theirs.fastest.cpu_ms_each / ours.fastest.cpu_ms_each for ours, theirs in zip(own, peer, strict=True)]
            ),
        }
    return figures


def beside_loop(own: Sequence[Round], loops: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return what the server does beside the loop of the same round.

    p99_above_loop_ms: of the rounds in which both kept their speed; left out if none did.
    """
    pairs = list(zip(own, loops, strict=True))
    above = [
        one.steady.quantile(0.99) - loop["loaded_p99_ms"]
        for one, loop in pairs
        if one.kept_its_speed and same_speed(loop["per_second"], loop["per_second_again"])
    ]
    return {
        "share_of_loop": spread([one.fastest.per_second / loop["per_second"] for one, loop in pairs]),
        # The same in processor time: what others do on the machine meanwhile weighs less in it.
        "cpu_share_of_loop": spread([loop["cpu_ms_each"] / one.fastest.cpu_ms_each for one, loop in pairs]),
        **({"p99_above_loop_ms": spread(above)} if above else {}),
        # 80 % of what a core does alone are too much for one that others have for a third of the time.
        "waited_share": spread([one.steady.waited_share for one in own]),
    }


def server_figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return requests per second and, at 80 % of that, percentiles in milliseconds: of the rounds at one speed.

    Where no round was at one speed, of all.
    """
    at_speed = [one.steady for one in rounds if one.kept_its_speed]
    steady = at_speed or [one.steady for one in rounds]
    return {
        "per_second": spread([one.fastest.per_second for one in rounds]),
        "cpu_ms_each": spread([one.fastest.cpu_ms_each for one in rounds]),
        "p99_ms": spread([one.quantile(0.99) for one in steady]),
        "p50_ms": spread([one.quantile(0.5) for one in steady]),
        "rounds_at_one_speed": len(at_speed),
    }


def version_in(options: argparse.Namespace, server: str) -> str:
    """Return the version of a peer in its environment."""
    python = environment(options.environments, server, REQUIREMENTS)
    code = f"from importlib.metadata import version; print(version({server!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def measure_soak(
    options: argparse.Namespace, contents: Sequence[bytes], cores: tuple[int, int], folder: Path
) -> dict[str, Any]:
    """Return what came of minutes of mixed load."""
    model = open_model(options.bundle, threads=1)
    takes = model.input_format
    shape, value = [1, *takes.shape], 128 if takes.datatype == "UINT8" else 0.5
    tensor = {
        "model": model.name,
        "input": {"name": "images", "datatype": takes.datatype, "shape": shape, "data": [value] * math.prod(shape)},
    }
    port = free_port()
    command, settings = command_of("kinglet", options, port)
    settings["KINGLET_BODY_TIMEOUT"] = "5"
    with started(command, cores[0], port, folder / "soak.log", settings) as pid:
        return soak(port, pid, requests_of(contents, tensor), options.soak_seconds)


def main() -> int:
    """Read the options, measure; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure Kinglet's server.")
    parser.add_argument("--bundle", type=Path, default=ROOT / "artifacts" / "bundle")
    parser.add_argument("--images", type=Path, help="folder of .jpg files to send; the golden images unless given")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="0 for the soak alone")
    parser.add_argument("--soak-seconds", type=float, default=180.0, help="0 for no soak")
    parser.add_argument("--peers", nargs="*", choices=sorted(SERVERS), default=sorted(SERVERS))
    parser.add_argument("--environments", type=Path, default=ROOT / ".kinglet" / "peers", help="where peers are kept")
    parser.add_argument("--log", default="all", help="what Kinglet's server logs meanwhile: all, errors or none")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return exit_code_of(lambda: measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
