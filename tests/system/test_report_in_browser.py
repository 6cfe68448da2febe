"""The report as a browser sees it: every chapter and chart laid out, no console message, no request."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

import tasks.benchmark
import tasks.bundle
import tasks.compare
import tasks.evaluate
import tasks.gate
import tasks.report
import tasks.robustness
import tasks.select
from tests.unit.tasks.small_project import CHAPTERS, build_project, parameters

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CONSOLE = re.compile(r"CONSOLE[:(\]]")

STEPS = (tasks.evaluate, tasks.compare, tasks.robustness, tasks.benchmark, tasks.select, tasks.bundle, tasks.gate)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on the path")

# A page of the test's own that shows the report in a frame and writes down what it finds there.
PROBE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe id="frame" src="report.html" width="WIDTH" height="900"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {
  const view = document.getElementById("frame").contentWindow, page = view.document;
  const shown = element => element.getBoundingClientRect().height > 0 && element.getBoundingClientRect().width > 0;
  document.getElementById("found").textContent = JSON.stringify({
    chapters: [...page.querySelectorAll("[id]")].filter(shown).map(element => element.id),
    charts: [...page.querySelectorAll("svg.chart")].filter(shown).length,
    pictures: [...page.querySelectorAll("#errors img")].filter(image => image.naturalWidth > 0).length,
    resources: view.performance.getEntriesByType("resource").map(entry => entry.name),
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    hidden: Math.max(...[...page.querySelectorAll("#models .scroll")].map(box => box.scrollWidth - box.clientWidth)),
    cut: [...page.querySelectorAll("svg.chart text.label.end")].filter(shown).filter(
      name => name.getBBox().x < 0).map(name => name.textContent),
    colours: [view.getComputedStyle(page.body).backgroundColor, view.getComputedStyle(page.body).color],
  });
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Serve the report from this machine and keep the path of every request."""
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("KINGLET_CACHE", str(root / "cache"))
        for task in (*STEPS, tasks.report):
            task.run(parameters())
    folder = root / "artifacts" / "report"
    requested = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requested.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()


def browse(profile: Path, url: str, *options: str) -> subprocess.CompletedProcess:
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=5000",
        *options,
        "--dump-dom",
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("width", [1280, 1120, 390])
def test_every_chapter_and_chart_is_shown_without_a_request(site, tmp_path, width):
    folder, address, requested = site
    (folder / "probe.html").write_text(PROBE.replace("WIDTH", str(width)))
    requested.clear()
    finished = browse(tmp_path, f"{address}/probe.html", "--window-size=1400,1000")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL).group(1))

    assert [name for name in CHAPTERS if name not in found["chapters"]] == []
    # Models, waterfall, differences, slices, folds, search, confidence: of each the wide or the narrow one.
    assert found["charts"] == 7
    assert found["pictures"] == 6
    assert found["wider"] <= 0  # nothing makes the page scroll sideways
    assert width < 1120 or found["hidden"] <= 0  # nor the models, on a desk
    assert found["cut"] == []
    assert found["resources"] == []
    assert sorted(requested) == ["/probe.html", "/report.html"]
    assert not CONSOLE.search(finished.stderr), finished.stderr


def test_the_page_follows_the_readers_dark_setting(site, tmp_path):
    folder, address, _ = site
    (folder / "probe.html").write_text(PROBE.replace("WIDTH", "1000"))
    seen = [
        json.loads(
            re.search(
                r'<pre id="found">(.*?)</pre>', browse(tmp_path / name, f"{address}/probe.html", option).stdout
            ).group(1)
        )["colours"]
        for name, option in (
            ("light", "--blink-settings=preferredColorScheme=1"),
            ("dark", "--blink-settings=preferredColorScheme=0"),
        )
    ]
    assert seen[0] != seen[1]


def test_the_file_opens_from_disk_without_a_message(site, tmp_path):
    folder, _, _ = site
    finished = browse(tmp_path, (folder / "report.html").as_uri())
    assert "The models" in finished.stdout
    assert not CONSOLE.search(finished.stderr), finished.stderr
