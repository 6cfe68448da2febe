"""One script per peer, run inside the peer's environment: `python -m benchmarks.peers.recipes.NAME TASK OUTPUT`.

TASK is the folder that `benchmarks.peers.task_folder` writes. OUTPUT gets `model.onnx` or `model.xml` with
`model.bin`, and `settings.json`: what was set, in words. Each takes the peer's own documented way, at the
setting that loses least on the images set aside for choices.
"""
