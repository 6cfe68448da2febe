"""The page at `/`: drop an image, see the answer, the time and the model card. One file, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files

from markdown_it import MarkdownIt

from kinglet.serving.problems import problem_of
from kinglet.serving.served_model import ServedModel

TEMPLATE = "page.html"
ACCEPTED = ("image/jpeg", "image/png", "image/webp")
# What the page asks for, and how its script knows.
OF_IMAGES = {
    "of_clips": "",
    "drop": "Drop images here, or choose them",
    "kinds": "JPEG, PNG or WebP. Pasting works too.",
    "example": "photo.jpg -H 'Content-Type: image/jpeg'",
}
OF_CLIPS = {
    "of_clips": " data-clips",
    "drop": "Drop a video here, or the frames of a clip",
    "kinds": "MP4, AVI, WebM or Matroska; JPEG, PNG or WebP for frames, in the order of their names.",
    "example": "clip.mp4 -H 'Content-Type: video/mp4'",
}


def page_of(model: ServedModel) -> bytes:
    """Return the page for a model, as UTF-8."""
    text = files("kinglet.serving").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # Raw HTML in a card stays text: a class may be called <b>.
    card = MarkdownIt("commonmark", {"html": False}).enable("table").render(model.card)
    problem = problem_of(model)
    values = {
        "name": html.escape(model.name),
        "version": html.escape(model.version),
        "does": problem.does(model.predictor.classes),
        "title": problem.title,
        **(OF_CLIPS if problem.of_clips else OF_IMAGES),
        "accept": ",".join([*problem.media_types, *ACCEPTED]),
        "card": card or "<p>The bundle has no model card.</p>",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found.group(1)], text).encode()


def security_headers(page: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of the page: its own script runs, and it talks to this server only."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    ]
