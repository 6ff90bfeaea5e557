"""Wrong numbers in a written file, ten times above what rounding may do, are refused one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnx_exact import optimize, optimize_file
from onnx_exact.errors import ValidationError
from onnx_exact.graph.splice import splice
from onnx_exact.stages import reducing
from tests.side_by_side import Input
from tests.validate.networks import (
    built,
    constant,
    network,
    normalised,
    plain,
    quantised,
    replaced,
    saved,
    with_tail,
)
from tests.validate.test_tails import computed

TIMES = 10.0
FLOATS = {np.float16: onnx.TensorProto.FLOAT16, np.float64: onnx.TensorProto.DOUBLE}


def typed(dtype: Any) -> ModelProto:
    kind = FLOATS[dtype]
    return plain(dtype=dtype, elem_type=kind, inputs=[Input("x", (None, 6), kind)])


def behind_another() -> ModelProto:
    nodes, constants = network(made="m")
    more, others = network("s", prefix="second_", sizes=(4, 18, 15, 3), seed=1)
    middle = helper.make_node("Sigmoid", ["m"], ["s"])
    return built([*nodes, middle, *more], **constants, **others)


MODELS = {
    "float32": plain,
    "float16": lambda: typed(np.float16),
    "float64": lambda: typed(np.float64),
    "quantised outputs": lambda: with_tail(quantised()),
    "two chains": behind_another,
    "folded layers": lambda: normalised(np.float32, 1.0),
}


@pytest.mark.parametrize("goal", ["deploy", "size"])
@pytest.mark.parametrize("name", MODELS)
def test_wrong_weights_and_biases_in_the_file_are_refused(
    name: str, goal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = MODELS[name]()
    new, report = optimize(old, domain="0:1", goal=goal)
    assert report.deviation is not None
    allowed = max(chain.expected for chain in report.deviation.chains)
    planted = [
        wrong
        for tensor in new.graph.initializer
        if (wrong := plant(new, tensor.name, TIMES * allowed)) is not None
    ]
    assert len(planted) >= 4
    for wrong in planted:
        monkeypatch.setattr(reducing, "splice", lambda *_, wrong=wrong: wrong)
        with pytest.raises(ValidationError, match="the chain that was written"):
            optimize(old, domain="0:1", goal=goal)


def plant(made: ModelProto, name: str, size: float) -> ModelProto | None:
    """The model with one entry of a constant so far off that a chain's output moves by `size`.

    None where the constant is no number of a chain, or does not tell.
    """
    values = constant(made, name)
    if values.dtype.kind != "f" or not values.size or name in {"step", "k"}:
        return None
    entry = int(np.abs(values).argmax())
    step = float(np.abs(values).max()) * 2.0**-4
    for _ in range(60):
        moved = change(made, name, entry, step)
        if moved == 0.0 or 1.0 <= moved / size <= 2.0:
            break
        step *= min(max(1.4 * size / moved, 2.0**-8), 2.0**8)
    if moved < size:
        return None
    return replaced(made, name, bumped(values, entry, step))


def bumped(values: NDArray[Any], entry: int, step: float) -> NDArray[Any]:
    other = values.copy()
    other.flat[entry] += step
    return other


def change(made: ModelProto, name: str, entry: int, step: float) -> float:
    """How far that entry moves the outputs of the chains at points of the domain."""
    other = replaced(made, name, bumped(constant(made, name), entry, step))
    dtype = helper.tensor_dtype_to_np_dtype(made.graph.input[0].type.tensor_type.elem_type)
    x = np.random.default_rng(1).uniform(size=(200, 6)).astype(dtype)
    outputs = [computed(tapped(m), {"x": x}) for m in (made, other)]
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        for a, b in zip(*outputs, strict=True)
    )


def tapped(made: ModelProto) -> ModelProto:
    """The model with the outputs of its chains for outputs."""
    inside = ModelProto()
    inside.CopyFrom(made)
    del inside.graph.output[:]
    tensors = {name for node in made.graph.node for name in node.output} & {"m", "f"}
    inside.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(tensors))
    return inside


def test_refused_file_is_not_written_but_the_input_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any) -> ModelProto:
        made = splice(*arguments)
        return replaced(made, "b2", constant(made, "b2") + np.float32(1e-3))

    monkeypatch.setattr(reducing, "splice", wrong)
    with pytest.raises(ValidationError, match="counterexample"):
        optimize_file(saved(plain(), tmp_path), tmp_path / "out.onnx", domain="0:1")
    assert not (tmp_path / "out.onnx").exists()
    with np.load(tmp_path / "out.onnx.counterexample.npz") as found:
        assert found["x"].shape[1:] == (6,)
