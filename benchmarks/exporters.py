"""What real exporters write, reduced: `python -m benchmarks.exporters`.

Small networks are trained on the digits of scikit-learn, by scikit-learn, PyTorch and Keras,
exported as their users export them, and optimized over the box of the training data, with a
certificate that `verify` checks. This job needs `pip install '.[exporters]'`, which brings
gigabytes, so that the tests go without it. What came out goes to
`benchmarks/results/exporters.json`, and to `exporters.md`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.deciding.tables import where
from benchmarks.running.processes import RESULTS, machine, now, write_text
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import verify

PACKAGES = (
    "scikit-learn",
    "skl2onnx",
    "torch",
    "keras",
    "onnxscript",
    "onnx",
    "onnxruntime",
    "numpy",
)
EPOCHS = 60
L1 = 1e-3
Data = tuple[NDArray[np.float32], NDArray[np.int64]]
Exporter = Callable[[Data, Path], None]


@dataclass(frozen=True)
class Row:
    """What became of one exported model.

    Attributes:
        name: exporter and network.
        nodes: of the exported graph.
        units, connections: before and after.
        deviation: certified.
        verified: whether `verify` accepts the certificate.
        difference: the largest of any output on the training data, in onnxruntime.
    """

    name: str
    nodes: int
    units: tuple[int, int]
    connections: tuple[int, int]
    deviation: float
    verified: bool
    difference: float


def digits() -> Data:
    """Images of 8 by 8 pixels from 0 to 16, as (samples, 64), and their labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def sklearn_classifier(data: Data, path: Path) -> None:
    """StandardScaler and MLPClassifier, with the ZipMap that skl2onnx writes by default."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((64, 32), alpha=30.0, max_iter=200, random_state=0)
    _sklearn(data, path, model)


def sklearn_regressor(data: Data, path: Path) -> None:
    """StandardScaler and MLPRegressor."""
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=(64, 32), solver="lbfgs", alpha=30.0, max_iter=400, random_state=0
    )
    _sklearn(data, path, model)


def _sklearn(data: Data, path: Path, model: Any) -> None:
    import warnings

    from skl2onnx import to_onnx
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(data[0], data[1])
        path.write_bytes(to_onnx(pipeline, data[0][:1]).SerializeToString())


def torch_dense(data: Data, path: Path) -> None:
    """Linear, BatchNorm1d and ReLU twice, weights with l1, exported by torch.onnx.export."""
    _torch(data, path, dynamo=True)


def torch_traced(data: Data, path: Path) -> None:
    """The same by the exporter that traces."""
    _torch(data, path, dynamo=False)


def _torch(data: Data, path: Path, *, dynamo: bool) -> None:
    import torch

    torch.manual_seed(0)
    nn = torch.nn
    network = nn.Sequential(
        *(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Linear(32, 10),
    )
    x, y = torch.tensor(data[0]), torch.tensor(data[1])
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            loss = loss + L1 * sum(p.abs().sum() for p in network.parameters())
            loss.backward()
            optimizer.step()
    names = {"input_names": ["x"], "output_names": ["y"]}
    batch: dict[str, Any] = {"dynamic_axes": {"x": {0: "batch"}}}
    if dynamo:
        batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    network.eval()
    example = (torch.zeros(2, 64),)
    torch.onnx.export(network, example, str(path), dynamo=dynamo, **names, **batch)


def keras_dense(data: Data, path: Path) -> None:
    """Rescaling, Dense with l1, BatchNormalization and ReLU, twice, exported by Keras 3."""
    import keras

    keras.utils.set_random_seed(0)
    l1 = keras.regularizers.L1(L1)
    layers: list[Any] = [keras.Input((64,)), keras.layers.Rescaling(1.0 / 16.0)]
    for width in (64, 32):
        layers += [keras.layers.Dense(width, kernel_regularizer=l1)]
        layers += [
            keras.layers.BatchNormalization(gamma_regularizer=l1, beta_regularizer=l1),
            keras.layers.ReLU(),
        ]
    network = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    network.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    network.fit(data[0], data[1], epochs=EPOCHS, batch_size=128, verbose=0)
    network.export(path, format="onnx", verbose=False)


EXPORTERS: dict[str, Exporter] = {
    "skl2onnx: StandardScaler, MLPClassifier": sklearn_classifier,
    "skl2onnx: StandardScaler, MLPRegressor": sklearn_regressor,
    "torch.onnx: Linear, BatchNorm1d": torch_dense,
    "torch.onnx, traced: Linear, BatchNorm1d": torch_traced,
    "Keras 3: Rescaling, Dense, BatchNormalization": keras_dense,
}


def measured(name: str, data: Data, folder: Path) -> Row:
    """One exported model, optimized over the box of its training data and verified."""
    import onnx

    source, result, certificate = (
        folder / file for file in ("in.onnx", "out.onnx", "certificate.npz")
    )
    EXPORTERS[name](data, source)
    np.save(folder / "data.npy", data[0])
    report = optimize_file(
        source, result, domain=f"data:{folder / 'data.npy'}", certificate=certificate
    )
    totals = report.totals
    assert totals.units_after is not None
    assert totals.connections_after is not None
    assert report.certified is not None
    return Row(
        name,
        len(onnx.load(source).graph.node),
        (totals.units_before, totals.units_after),
        (totals.connections_before, totals.connections_after),
        report.certified.max_abs or 0.0,
        verify(source, result, certificate).verified,
        _difference(source, result, data[0]),
    )


def _difference(old: Path, new: Path, x: NDArray[np.float32]) -> float:
    import onnxruntime

    found = []
    for path in (old, new):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: x})
        found.append(_numbers(outputs[-1]))
    return float(np.abs(found[0] - found[1]).max())


def _numbers(output: Any) -> NDArray[np.float64]:
    """An output as numbers; that of a ZipMap is a list of what each label gets."""
    if isinstance(output, list):
        output = [list(row.values()) for row in output]
    return np.asarray(output, dtype=np.float64)


def markdown(found: dict[str, Any]) -> str:
    """The record as a table."""
    lines = [
        "# What real exporters write, reduced",
        "",
        "Written by `python -m benchmarks.exporters`.",
        where(found["machine"]),
        "",
        "Trained on the digits of scikit-learn, over the box of the training data. *Difference*:",
        "the largest of any output on that data, in onnxruntime.",
        "",
        "| exporter | nodes | ReLU units | connections | certified | verified | difference |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in found["rows"]:
        sizes = (f"{row[key][0]:,} to {row[key][1]:,}" for key in ("units", "connections"))
        cells = [row["name"], str(row["nodes"]), *sizes, f"{row['deviation']:.2g}"]
        cells += ["yes" if row["verified"] else "NO", f"{row['difference']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Exports, optimizes and verifies all of them; 1 where one is not smaller or not verified."""
    del argv
    os.environ.setdefault("KERAS_BACKEND", "torch")
    data, rows = digits(), []
    for name in EXPORTERS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(name, data, Path(folder)))
        print(rows[-1], file=sys.stderr, flush=True)
    found = {"machine": machine(PACKAGES), "date": now(), "rows": [asdict(row) for row in rows]}
    write_text(RESULTS / "exporters.json", json.dumps(found, indent=1) + "\n")
    write_text(RESULTS / "exporters.md", markdown(found))
    return int(not all(r.verified and r.units[1] < r.units[0] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
