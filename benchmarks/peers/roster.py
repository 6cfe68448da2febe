"""Who is compared: one line per peer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import REQUIREMENTS


@dataclass(frozen=True)
class Peer:
    """A peer's recipe and the environment that it, and later its model, runs in.

    name: in the result. title: in the table. packages: those whose version a reader wants to know; the first
    is shown. environment: name of the requirements file. recipe: in `recipes/`, where it is not called as the
    peer is. follows: the peer whose model it starts from, instead of the teacher. trains: it is given time.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    environment: str
    recipe: str = ""
    follows: str = ""
    trains: bool = False

    @property
    def versions(self) -> dict[str, str]:
        """The versions that are pinned."""
        return {package: pinned(self.environment, package) for package in self.packages}


PEERS = (
    Peer("openvino", "OpenVINO, not quantized", ("openvino",), "nncf"),
    Peer("nncf", "NNCF in OpenVINO", ("nncf", "openvino"), "nncf"),
    Peer("onnxruntime", "ONNX Runtime's quantizer", ("onnxruntime",), "onnxruntime"),
    Peer("olive", "Olive", ("olive-ai", "onnxruntime"), "olive"),
    Peer("neural_compressor", "Intel Neural Compressor", ("neural_compressor", "onnxruntime"), "neural_compressor"),
    Peer("torch_pruning", "Torch-Pruning", ("torch-pruning", "torch"), "torch_pruning", trains=True),
    Peer(
        "torch_pruning_int8",
        "Torch-Pruning, then ONNX Runtime's quantizer",
        ("onnxruntime",),
        "onnxruntime",
        recipe="onnxruntime",
        follows="torch_pruning",
    ),
)


def pinned(environment: str, package: str, folder: Path = REQUIREMENTS) -> str:
    """Return the version of a package in an environment's requirements; raises ValueError if it is not pinned."""
    for line in (folder / f"{environment}.txt").read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if name.strip() == package:
            return version.strip()
    raise ValueError(f"{environment}.txt pins no {package}")
