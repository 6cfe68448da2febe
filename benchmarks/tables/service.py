"""The rows of what answers in production: server, container, monitoring."""

from __future__ import annotations

from typing import Any

from benchmarks.results import counted
from benchmarks.tables.words import Rows

SERVERS = {"litserve": "LitServe", "bentoml": "BentoML"}


def serving_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of serving.json."""
    own = figures["kinglet"]
    share = own["share_of_loop"]
    rows = [
        (
            "Server: JPEG in, class out, beside a bare loop on the same core",
            "at least 70 % of its images/s",
            f"**{100 * share['median']:.0f} %** ({100 * share['low']:.0f} to {100 * share['high']:.0f}, "
            f"{counted(len(share['values']), 'round')}): {own['per_second']['median']:,.0f} beside "
            f"{figures['bare_loop']['per_second']['median']:,.0f}; "
            f"{100 * own['cpu_share_of_loop']['median']:.0f} % in processor time",
        ),
        (
            "Server: 99th percentile at 80 % load above the bare loop's at 80 % of its own",
            "at most 5 ms",
            above_loop(own),
        ),
    ]
    for name, peer in sorted(figures["peers"].items()):
        what, goal = (
            f"Server: beside {SERVERS[name]} with the same file",
            "at least 2 times its requests/s, a lower p99",
        )
        if "failed" in peer:
            rows.append((what, goal, f"no result: {peer['failed']}"))
            continue
        times = peer["times_kinglet"]
        rows.append(
            (
                f"{what}, version {peer['version']}",
                goal,
                f"**{times['median']:.1f} times** ({times['low']:.1f} to {times['high']:.1f}); p99 at 80 % load "
                f"{own['p99_ms']['median']:.1f} beside {peer['p99_ms']['median']:.1f} ms",
            )
        )
    return rows


def above_loop(own: dict[str, Any]) -> str:
    """Return how far the server's 99th percentile is above the loop's, and how that was measured."""
    n_rounds = len(own["share_of_loop"]["values"])
    if "p99_above_loop_ms" not in own:
        return f"no result: in none of {counted(n_rounds, 'round')} did the processor keep its speed"
    above = own["p99_above_loop_ms"]
    kept = ""
    if "rounds_at_one_speed" in own:  # not in results from before speeds were compared
        kept = (
            f", the {len(above['values'])} of {counted(n_rounds, 'round')} in which the processor kept its speed "
            "within a tenth"
        )
    return f"**{above['median']:.1f} ms** ({above['low']:.1f} to {above['high']:.1f}{kept})"


def soak_rows(figures: dict[str, Any]) -> Rows:
    """Return the row of serving_soak.json."""
    what = f"Server: {figures['minutes']:g} min of mixed load, bad requests in it"
    memory = f"{figures['memory_before_mb']:.0f} to {figures['memory_after_mb']:.0f} MB"
    measured = (
        f"**{figures['unexpected']} unexpected** of {figures['requests']:,}, "
        f"memory **{100 * figures['growth']:+.1f} %** ({memory})"
    )
    return [(what, "no unexpected answer, memory flat within 5 %", measured)]


def container_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of container.json."""
    whole, half = figures["quotas"]["1.0"], figures["quotas"]["0.5"]
    ready = whole["ready_seconds"]
    return [
        (
            "Container: size above the base image; ready",
            "at most 180 MB; within 3 s",
            f"**{figures['above_base_mb']:.0f} MB**; **{ready['median']:.1f} s** ({ready['low']:.1f} to "
            f"{ready['high']:.1f}, {counted(len(ready['values']), 'start')})",
        ),
        (
            "Container under half a core: requests/s and 99th percentile at 80 % load",
            "those of half a core",
            f"**{half['per_second']['median']:,.0f} requests/s** beside {whole['per_second']['median']:,.0f} under a "
            f"whole one, p99 **{half['p99_ms']['median']:.0f} ms** ({half['p99_ms']['low']:.0f} to "
            f"{half['p99_ms']['high']:.0f}; the quota's period is 100 ms) beside {whole['p99_ms']['median']:.0f} ms, "
            f"{half['memory_mb']['median']:.0f} MB of memory",
        ),
    ]


def monitoring_rows(figures: dict[str, Any]) -> Rows:
    """Return the rows of monitoring.json."""
    alarms, server = figures["alarms"], figures["server"]
    still, moved = alarms["without_drift"], alarms["with_drift"]
    seen = ", ".join(f"{name} {found['alarms']} of {found['checks']}" for name, found in moved.items())
    cost = server["cpu_times"]
    return [
        (
            f"Monitoring: checks of {alarms['stream_images']:,} images without drift that alarm",
            f"{100 * alarms['false_alarm_rate']:g} %, as asked for",
            f"**{100 * still['share']:.1f} %** ({100 * still['low']:.1f} to {100 * still['high']:.1f}): "
            f"{still['alarms']} of {still['checks']:,}",
        ),
        ("Monitoring: checks that see a drift, made", "", f"**{seen}**"),
        (
            f"Server with `--monitor` beside without, images of {server['pixels']} px",
            "",
            f"**{cost['median']:.2f} times** the processor time per request ({cost['low']:.2f} to {cost['high']:.2f})",
        ),
    ]
