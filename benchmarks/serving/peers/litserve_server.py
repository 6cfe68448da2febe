"""LitServe serving the ONNX file of a bundle: JPEG in, class out, one worker, no batching."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.serving.bare_loop import classify, open_bundle


class Classifier(litserve.LitAPI):
    """Takes an image in base64 as JSON, as LitServe's examples do: raw bytes it does not read."""

    def setup(self, device: str) -> None:
        """Open the model."""
        del device
        self.opened = open_bundle(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Return the encoded image."""
        return base64.b64decode(request["image"])

    def predict(self, content: bytes) -> tuple[str, float]:
        """Return class and probability."""
        return classify(content, *self.opened)

    def encode_response(self, answer: tuple[str, float]) -> dict[str, Any]:
        """Return what is sent as JSON."""
        return {"class": answer[0], "confidence": answer[1]}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=1, timeout=30)
    server.run(
        port=int(sys.argv[2]), host="127.0.0.1", num_api_servers=1, generate_client_file=False, log_level="error"
    )
