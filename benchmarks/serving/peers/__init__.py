"""The same ONNX file served by others, each as its documentation shows it, in an environment of its own."""
