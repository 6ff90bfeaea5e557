"""The steps of the straight line of `onnx_exact.pipeline`; each takes a `Run`."""
