"""One run on a model above the 2 GB that fit into one protobuf message, generated and thrown away.

`python -m benchmarks.large` writes a small network beside a table of 2.2 GB into a temporary
folder, with external data, optimizes it into a new file and in place, and checks in onnxruntime
that the results compute the same and that the table is the same, bit for bit. It needs about 9 GB
of disk and 18 GB of memory, and prints what it took.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.pipeline import optimize_file

# Rows of 256 float32 numbers: 2.2 GB of them.
ROWS, WIDTH = 2_150_000, 256
UNITS = 64
BLOCK = 2**24


def main() -> int:
    """Runs it; 1 if anything is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="large") as name:
        folder = Path(name)
        source, target = folder / "in.onnx", folder / "out.onnx"
        _write(source)
        size = _size(source)
        started = time.process_time()
        report = optimize_file(source, target, domain={"x": (0.0, 1.0)})
        seconds = time.process_time() - started
        right = report.changed and _table(target) == _table(source)
        right &= bool(np.allclose(_run(source), _run(target), rtol=0, atol=1e-5))
        expected = _run(source)
        optimize_file(source, source, in_place=True, domain={"x": (0.0, 1.0)})
        right &= bool(np.allclose(expected, _run(source), rtol=0, atol=1e-5))
        right &= _table(target) == _table(source)
        names = sorted(file.name for file in folder.iterdir())
        right &= names == ["in.onnx", "in.onnx.data", "out.onnx", "out.onnx.data"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    units = f"{report.totals.units_before} to {report.totals.units_after} units"
    print(
        f"{size:,} bytes, {units}, {seconds:.0f} s of the processor, {memory:.1f} GiB of memory:"
        f" {'all right' if right else 'WRONG'}"
    )
    return int(not right)


def _write(path: Path) -> None:
    """y = W2 relu(W1 (x + the table's rows i) + b1), with dead units; the table in a file."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, WIDTH**-0.5, (UNITS, WIDTH)).astype(np.float32)
    bias = np.where(np.arange(UNITS) % 2, -1e3, 0.1).astype(np.float32)
    last = rng.normal(size=(8, UNITS)).astype(np.float32)
    data = path.with_name(f"{path.name}.data")
    _write_table(data, rng)
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS, WIDTH])
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", 0), ("length", data.stat().st_size)):
        table.external_data.add(key=key, value=str(value))
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["s"]),
        helper.make_node("Clip", ["s", "low", "high"], ["c"]),
        helper.make_node("Gemm", ["c", "w1", "b1"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "w2"], ["y"], transB=1),
    ]
    stored = {"w1": first, "b1": bias, "w2": last, "low": np.float32(-8), "high": np.float32(8)}
    graph = helper.make_graph(
        nodes,
        "large",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH]),
            helper.make_tensor_value_info("i", TensorProto.INT64, ["n"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [table, *(numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items())],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def _write_table(path: Path, rng: np.random.Generator) -> None:
    rows = 50_000
    with path.open("wb") as file:
        for _ in range(ROWS // rows):
            file.write(rng.random((rows, WIDTH), np.float32).tobytes())


def _size(path: Path) -> int:
    return path.stat().st_size + path.with_name(f"{path.name}.data").stat().st_size


def _table(path: Path) -> str:
    """A digest of the table that a model holds, read piece by piece."""
    model = onnx.load(path, load_external_data=False)
    (tensor,) = [t for t in model.graph.initializer if t.name == "table"]
    where = {entry.key: entry.value for entry in tensor.external_data}
    digest, left = hashlib.sha256(), int(where["length"])
    with (path.parent / where["location"]).open("rb") as file:
        file.seek(int(where.get("offset", 0)))
        while left:
            piece = file.read(min(BLOCK, left))
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def _run(path: Path) -> NDArray[np.float32]:
    import onnxruntime

    rng = np.random.default_rng(1)
    feed = {"x": rng.random((16, WIDTH), np.float32), "i": rng.integers(0, ROWS, 16)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    values: NDArray[np.float32] = session.run(None, feed)[0]
    return values


if __name__ == "__main__":
    sys.exit(main())
