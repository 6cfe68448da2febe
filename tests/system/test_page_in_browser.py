"""The server's page as a browser sees it: an image chosen, dropped, refused; the card; no request but to the server."""

import html
import http.server
import json
import re
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from kinglet.runtime.decoding import decode
from kinglet.serving.served_model import open_model
from tasks.clip_bundle import pack_clip_network
from tests.system.test_report_in_browser import BROWSER, CONSOLE, browse
from tests.unit.models.clip_files import moving_bars, write_clip_network
from tests.unit.models.detector_files import pictures
from tests.unit.runtime.detector_bundle import build_detector_bundle
from tests.unit.serving.running_server import build_bundle, encoded, running
from tests.unit.tasks.segmenter_project import (
    HEIGHT,
    TEACHER,
    WIDTH,
    photos_of_blots,
    write_bundle,
    write_segmenter,
)
from tests.unit.tasks.small_project import noisy_quadrants
from tests.unit.tracking.made_videos import write_frames

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on the path")

IMAGE = noisy_quadrants(1, 40, 3, seed=3)[0][0]
# A page of the test's own, from the server's address, that shows the page in a frame and uses it like a person.
PROBE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe id="frame" src="/" width="WIDTH" height="900"></iframe><pre id="found"></pre><script>
addEventListener("load", async () => {
  const view = document.getElementById("frame").contentWindow, page = view.document;
  const file = async (path, name, type) => new view.File([await (await fetch(path)).arrayBuffer()], name, { type });
  const transfer = (...files) => {
    const all = new view.DataTransfer();
    files.forEach(each => all.items.add(each));
    return all;
  };
  const settled = async count => {
    for (let tries = 0; tries < 200; tries++) {
      if (page.querySelectorAll(".answer").length === count && !page.querySelector(".waiting")) return;
      await new Promise(done => setTimeout(done, 20));
    }
  };
  const input = page.getElementById("files");
  input.files = transfer(await file("/image.png", "chosen.png", "image/png")).files;
  input.dispatchEvent(new view.Event("change"));
  await settled(1);
  const text = await file("/text.png", "text.png", "image/png");
  const dropped = transfer(await file("/image.jpg", "dropped.jpg", "image/jpeg"), text);
  page.body.dispatchEvent(new view.DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
  await settled(3);
  const answers = [...page.querySelectorAll(".answer")].map(answer => ({
    class: answer.querySelector(".class")?.firstChild.textContent,
    bars: [...answer.querySelectorAll(".bar i")].filter(bar => bar.getBoundingClientRect().height > 0).length,
    time: answer.querySelector(".time")?.textContent,
    file: answer.querySelector(".file")?.textContent,
    refused: answer.querySelector(".refused")?.textContent,
    picture: answer.querySelector("img").naturalWidth,
  }));
  document.getElementById("found").textContent = JSON.stringify({
    answers, card: page.querySelector("#card h1").textContent, cells: page.querySelectorAll("#card td").length,
    command: page.getElementById("command").textContent,
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    colour: view.getComputedStyle(page.body).backgroundColor,
    elsewhere: view.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith(view.location.origin) && !name.startsWith("blob:")),
  });
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Serve a model, and the test's own files from the same address."""
    model = open_model(build_bundle(tmp_path_factory.mktemp("serving")), threads=1)
    own = {
        "/image.png": encoded(IMAGE),
        "/image.jpg": encoded(IMAGE, "JPEG"),
        "/text.png": b"this is text",
    }
    with served_beside(model, own) as address:
        yield own, address, model


@contextmanager
def served_beside(model, own):
    """Serve a model, and the test's own files: what is not the test's goes to the server; yield the address."""
    with running(model) as started:

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                if self.path in own:
                    self.answer(200, {"content-length": str(len(own[self.path]))}, own[self.path])
                else:
                    self.pass_on(None)

            def do_POST(self):
                self.pass_on(self.rfile.read(int(self.headers["content-length"])))

            def pass_on(self, body):
                kinds = {"content-type": self.headers["content-type"]} if body is not None else {}
                response = started.client.request(self.command, self.path, content=body, headers=kinds)
                self.answer(response.status_code, response.headers, response.content)

            def answer(self, status, headers, content):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(site, folder, width, *options):
    own, address, _ = site
    own["/probe.html"] = PROBE.replace("WIDTH", str(width)).encode()
    finished = browse(
        folder, f"{address}/probe.html", "--window-size=1400,1000", "--virtual-time-budget=15000", *options
    )
    return json.loads(re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL).group(1)), finished.stderr


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_drops_images_and_sees_classes_times_and_the_card(site, tmp_path, width):
    found, messages = look(site, tmp_path, width)
    refused, dropped, chosen = found["answers"]  # the newest is on top
    for answer, name, form in ((chosen, "chosen.png", "PNG"), (dropped, "dropped.jpg", "JPEG")):
        pixels = decode(encoded(IMAGE, form), 10_000)[0]
        assert answer["class"] == site[2].predictor.predict([pixels]).classes[0]
        assert re.fullmatch(rf"{name}, 40 . 40, {form}", answer["file"])
        assert answer["bars"] == 4
        assert answer["picture"] == 40
        assert re.match(r"[\d.]+ ms in the server \(decoding [\d.]+ ms, network [\d.]+ ms\)", answer["time"])
    assert refused["refused"] == "It is no image; JPEG, PNG and WebP are served."
    assert refused["file"] == "text.png, status 415"
    assert found["card"] == "small student"
    assert found["cells"] == 2
    assert re.search(r"http://127\.0\.0\.1:\d+/predict$", found["command"])
    assert found["wider"] <= 0
    assert found["elsewhere"] == []
    # The browser itself notes a refusal; nothing else is said.
    said = [line for line in messages.splitlines() if CONSOLE.search(line) and "status of 415" not in line]
    assert said == []


def test_the_page_follows_the_readers_dark_setting(site, tmp_path):
    colours = {
        look(site, tmp_path / number, 1000, f"--blink-settings=preferredColorScheme={number}")[0]["colour"]
        for number in "01"
    }
    assert len(colours) == 2


# Drops a photo that lies on its side, and says where the page shows it and its boxes.
BOXES_PROBE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe id="frame" src="/" width="WIDTH" height="1400"></iframe><pre id="found"></pre><script>
addEventListener("load", async () => {
  const view = document.getElementById("frame").contentWindow, page = view.document;
  const all = new view.DataTransfer();
  all.items.add(new view.File([await (await fetch("/NAME")).arrayBuffer()], "NAME", { type: "image/TYPE" }));
  page.body.dispatchEvent(new view.DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true }));
  for (let tries = 0; tries < 200 && !(page.querySelector(".time") && page.querySelector("img").complete); tries++)
    await new Promise(done => setTimeout(done, 20));
  const sides = ({ left, top, width, height }) => [left, top, width, height];
  document.getElementById("found").textContent = JSON.stringify({
    picture: sides(page.querySelector(".answer img").getBoundingClientRect()),
    boxes: [...page.querySelectorAll(".answer rect")].map(box => sides(box.getBoundingClientRect())),
    words: [...page.querySelectorAll(".answer text")].map(text => text.textContent),
    title: page.querySelector(".class").textContent,
    file: page.querySelector(".file").textContent,
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
  });
});
</script>"""


def lying(upright, form):
    """Return an image as a file whose pixels lie on their side, and that says so: a quarter to the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(np.rot90(upright), form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))


def dropped_lying(probe, form, width):
    """Return a probe that drops such a file, and the file's name."""
    name = f"lying.{form.lower()}"
    filled = probe.replace("NAME", name).replace("TYPE", form.lower()).replace("WIDTH", str(width))
    return filled.encode(), name


@pytest.mark.parametrize(("width", "form"), [(1000, "JPEG"), (390, "PNG")])
def test_boxes_are_drawn_where_the_objects_are(tmp_path, width, form):
    model = open_model(build_detector_bundle(tmp_path / "made"), threads=1)
    upright = pictures(1, 120, seed=5)[0][:80]
    file = lying(upright, form)
    probe, name = dropped_lying(BOXES_PROBE, form, width)
    own = {f"/{name}": file, "/probe.html": probe}
    with served_beside(model, own) as address:
        finished = browse(tmp_path / "profile", f"{address}/probe.html", "--virtual-time-budget=15000")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL).group(1))
    (objects,) = model.predictor.predict([decode(file, 10_000)[0]])
    left, top, shown_width, shown_height = found["picture"]
    scale = shown_width / 120
    assert scale > 2
    assert shown_height == pytest.approx(80 * scale, abs=1)
    expected = [
        [left + x1 * scale, top + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale]
        for x1, y1, x2, y2 in objects.xyxy[::-1].tolist()  # the surest is drawn last, above the others
    ]
    np.testing.assert_allclose(found["boxes"], expected, atol=2)
    assert found["words"][-1].startswith(model.predictor.classes[objects.labels[0]])
    assert re.fullmatch(f"{name}, 120 . 80, {form}", found["file"])
    assert "<platelet>" in html.unescape(found["title"])  # a class's name is text
    assert found["wider"] <= 0


# The same for a mask: where the page shows it, and the colours of its pixels.
MASK_PROBE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe id="frame" src="/" width="WIDTH" height="1400"></iframe><pre id="found"></pre><script>
addEventListener("load", async () => {
  const view = document.getElementById("frame").contentWindow, page = view.document;
  const all = new view.DataTransfer();
  all.items.add(new view.File([await (await fetch("/NAME")).arrayBuffer()], "NAME", { type: "image/TYPE" }));
  page.body.dispatchEvent(new view.DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true }));
  for (let tries = 0; tries < 200 && !page.querySelector("canvas[data-drawn]"); tries++)
    await new Promise(done => setTimeout(done, 20));
  const sides = ({ left, top, width, height }) => [left, top, width, height];
  const layer = page.querySelector(".answer canvas"), { width, height } = layer;
  document.getElementById("found").textContent = JSON.stringify({
    picture: sides(page.querySelector(".answer img").getBoundingClientRect()),
    layer: sides(layer.getBoundingClientRect()), width, height,
    pixels: [...layer.getContext("2d").getImageData(0, 0, width, height).data],
    words: layer.getAttribute("aria-label"),
    names: [...page.querySelectorAll(".answer ol li")].map(item => item.firstChild.textContent),
    colours: [...page.querySelectorAll(".answer ol i")].map(bar => view.getComputedStyle(bar).backgroundColor),
    title: page.querySelector(".class").textContent,
    file: page.querySelector(".file").textContent,
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
  });
});
</script>"""


@pytest.mark.parametrize(("width", "form"), [(1000, "JPEG"), (390, "PNG")])
def test_a_mask_is_drawn_over_what_it_is_of_in_the_colours_of_its_legend(tmp_path, width, form):
    write_segmenter(tmp_path, TEACHER)
    write_bundle(tmp_path, TEACHER, tmp_path / "bundle")
    model = open_model(tmp_path / "bundle", threads=1)
    # Taller than wide, and not the same upside down.
    file = lying(np.rot90(photos_of_blots(3, seed=5)[0][0]), form)
    probe, name = dropped_lying(MASK_PROBE, form, width)
    with served_beside(model, {f"/{name}": file, "/probe.html": probe}) as address:
        finished = browse(tmp_path / "profile", f"{address}/probe.html", "--virtual-time-budget=15000")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL).group(1))
    (mask,) = model.predictor.predict([decode(file, 10_000)[0]])
    assert mask.shape == (WIDTH, HEIGHT)
    assert len(np.unique(mask)) == 3
    np.testing.assert_allclose(found["layer"], found["picture"], atol=1)
    _, _, shown_width, shown_height = found["picture"]
    assert shown_height / shown_width == pytest.approx(WIDTH / HEIGHT, abs=0.02)
    assert (found["width"], found["height"]) == (HEIGHT, WIDTH)
    pixels = np.array(found["pixels"]).reshape(*mask.shape, 4)
    assert 0 < pixels[..., 3].min() == pixels[..., 3].max() < 255  # the photo shows through
    legend = dict(zip(found["names"], found["colours"], strict=True))
    assert set(legend) == set(model.predictor.classes)
    for index, label in enumerate(model.predictor.classes):
        colour = [int(number) for number in re.findall(r"\d+", legend[label])]
        # A browser keeps colours multiplied by their opacity, so some digits are lost.
        np.testing.assert_allclose(
            pixels[mask == index][:, :3], np.broadcast_to(colour, ((mask == index).sum(), 3)), atol=2
        )
        assert f"{label} " in found["words"]
    assert found["title"] == "3 classes"
    assert re.fullmatch(f"{name}, {HEIGHT} . {WIDTH}, {form}", found["file"])
    assert found["wider"] <= 0


# Drops the frames of a clip in another order than that of their names, then a video.
CLIPS_PROBE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<iframe id="frame" src="/" width="WIDTH" height="1400"></iframe><pre id="found"></pre><script>
addEventListener("load", async () => {
  const view = document.getElementById("frame").contentWindow, page = view.document;
  const drop = async (count, type, ...names) => {
    const all = new view.DataTransfer();
    for (const name of names) {
      const content = await (await fetch("/" + name)).arrayBuffer();
      all.items.add(new view.File([content], name, { type }));
    }
    page.body.dispatchEvent(new view.DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true }));
    for (let tries = 0; tries < 200 && page.querySelectorAll(".time").length < count; tries++)
      await new Promise(done => setTimeout(done, 20));
  };
  await drop(1, "image/png", "10.png", "2.png", "5.png", "3.png", "1.png", "4.png");
  await drop(2, "video/mp4", "bars.mp4");
  document.getElementById("found").textContent = JSON.stringify({
    answers: [...page.querySelectorAll(".answer")].map(answer => ({
      file: answer.querySelector(".file").textContent,
      classes: [...answer.querySelectorAll(".class")].map(title => title.firstChild.textContent),
      when: [...answer.querySelectorAll(".clip .file")].map(line => line.textContent),
      lines: answer.querySelectorAll("polyline").length,
      video: answer.querySelectorAll("video").length,
    })),
    drop: page.querySelector(".drop strong").textContent,
    wider: page.documentElement.scrollWidth - page.documentElement.clientWidth,
  });
});
</script>"""


@pytest.mark.parametrize("width", [1000, 390])
def test_a_person_drops_the_frames_of_a_clip_and_a_video(tmp_path, width):
    clips, labels = moving_bars(4, seed=4)
    write_clip_network(tmp_path / "teacher")
    pack_clip_network(tmp_path / "bundle", tmp_path / "teacher", clips, labels, 10.0, "# bars\n")
    frames = [np.kron(frame, np.ones((4, 4, 1), np.uint8)) for clip in clips[[1, 0]] for frame in clip]
    video = write_frames(tmp_path / "bars.mp4", frames, range(0, 1200, 100))
    own = {
        **{f"/{name}.png": encoded(frame) for name, frame in zip((1, 2, 3, 4, 5, 10), clips[0], strict=True)},
        "/bars.mp4": video.read_bytes(),
        "/probe.html": CLIPS_PROBE.replace("WIDTH", str(width)).encode(),
    }
    with served_beside(open_model(tmp_path / "bundle", threads=1), own) as address:
        finished = browse(tmp_path / "profile", f"{address}/probe.html", "--virtual-time-budget=15000")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL).group(1))
    of_video, of_frames = found["answers"]
    assert of_frames["classes"] == ["left"]
    assert re.fullmatch("1.png and 5 more, 16 . 16, PNG", of_frames["file"])
    assert (of_video["classes"], of_video["video"]) == (["right", "left"], 1)
    assert of_video["when"][1].startswith("0.60 to 1.10 s, 6 frames")
    assert (of_frames["lines"], of_video["lines"]) == (3, 6)
    assert found["drop"] == "Drop a video here, or the frames of a clip"
    assert found["wider"] <= 0
