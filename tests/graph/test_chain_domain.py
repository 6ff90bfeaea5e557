"""The domain of a chain, and the way from its points back to the graph's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnx_exact.graph import Ranges, locate_chains
from onnx_exact.network import Box
from tests.graph.build import SLACK, Builder, box_of, run


def normalised(shape: list[Any]) -> tuple[ModelProto, str]:
    """Per-channel normalisation and a Flatten in front of a chain."""
    b = Builder()
    y = b.node("Div", b.node("Sub", "x", b.weight(3, 1, 1)), b.positive(3, 1, 1))
    y = b.node("Mul", b.node("Flatten", y), b.constant(np.array([-2.0], np.float32)))
    end = b.gemm(b.relu(b.gemm(y, 12, 5)), 5, 2)
    return b.model([end], {"x": shape}), y


@pytest.mark.parametrize("shape", [["batch", 3, 2, 2], [1, 3, 2, 2]])
def test_box_behind_a_normalisation_is_the_image_of_the_input_as_it_is_run(
    shape: list[Any],
) -> None:
    model, y = normalised(shape)
    (located,) = locate_chains(model)
    assert located.input == y
    box = box_of(shape)
    domain = Ranges(model, {"x": box}).chain_domain(located)
    origin = domain.origin
    assert origin is not None
    assert (origin.input, origin.sample_shape, origin.batched) == ("x", (3, 2, 2), True)
    corners = np.stack([domain.box.lower, domain.box.upper])
    samples = origin.to_graph(corners)
    # A negative scale swaps the corners. The chain's box is wider by what three operators round in
    # float32: its corners come from the nearest points of the input's box, which are its corners.
    assert np.array_equal(samples[0], box.upper[0])
    assert np.array_equal(samples[1], box.lower[0])
    np.testing.assert_allclose(origin.to_chain(samples), corners, rtol=1e-5)
    for corner, sample in zip(corners, samples, strict=True):
        (value,) = run(model, {"x": sample[None].astype(np.float32)}, [y])
        np.testing.assert_allclose(value[0], corner, rtol=SLACK, atol=SLACK)
        inside = sample.astype(np.float32).clip(box.lower[0], box.upper[0])
        (value,) = run(model, {"x": inside[None].astype(np.float32)}, [y])
        assert domain.box.contains(value)


def test_chain_on_an_input_has_the_input_s_own_box() -> None:
    b = Builder()
    model = b.model([b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    box = Box(np.zeros((1, 1)), np.ones((1, 1)), source="--domain 0:1")
    domain = Ranges(model, {"x": box}).chain_domain(located)
    assert np.array_equal(domain.box.lower, np.zeros(6))
    assert np.array_equal(domain.box.upper, np.ones(6))
    assert domain.box.source == "--domain 0:1"
    assert domain.origin is not None
    assert domain.origin.sample_shape == (6,)


def test_domain_of_a_chain_is_the_hull_over_the_leading_axes() -> None:
    b = Builder()
    model = b.model([b.relu(b.dense("x", 2, 5))], {"x": ["batch", 3, 2]})
    (located,) = locate_chains(model)
    box = Box(np.arange(6.0).reshape(1, 3, 2), np.arange(6.0).reshape(1, 3, 2) + 0.5)
    domain = Ranges(model, {"x": box}).chain_domain(located)
    assert np.array_equal(domain.box.lower, [0.0, 1.0])
    assert np.array_equal(domain.box.upper, [4.5, 5.5])


def test_points_are_repeated_along_further_leading_axes() -> None:
    b = Builder()
    y = b.relu(b.dense("x", 2, 5))
    model = b.model([y], {"x": ["batch", 3, 2]})
    (located,) = locate_chains(model)
    box = Box(np.zeros((1, 1, 2)), np.ones((1, 1, 2)))
    origin = Ranges(model, {"x": box}).chain_domain(located).origin
    assert origin is not None
    samples = origin.to_graph(np.array([[0.25, 0.5], [1.0, 0.0]]))
    assert samples.shape == (2, 3, 2)
    assert (samples[0] == [0.25, 0.5]).all()


def test_input_without_a_batch_axis_is_fed_one_by_one() -> None:
    b = Builder()
    y = b.relu(b.gemm(b.node("Flatten", "x", axis=0), 6, 5))
    model = b.model([y], {"x": [2, 3]})
    (located,) = locate_chains(model)
    origin = Ranges(model, {}).chain_domain(located).origin
    assert origin is not None
    assert (origin.sample_shape, origin.batched) == ((2, 3), False)


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Abs", "Softmax"])
def test_chain_behind_anything_else_has_no_origin(op: str) -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm(b.node(op, "x"), 6, 5)), 5, 2)
    model = b.model([y])
    (located,) = locate_chains(model)
    assert Ranges(model, {}).chain_domain(located).origin is None


def test_scale_of_zero_has_no_way_back() -> None:
    b = Builder()
    y = b.node("Mul", "x", b.constant(np.array([1, 0, 1, 1, 1, 1], np.float32)))
    model = b.model([b.gemm(b.relu(b.gemm(y, 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    assert Ranges(model, {}).chain_domain(located).origin is None


def test_two_inputs_have_no_single_origin() -> None:
    b = Builder()
    y = b.node("Add", "x", "z")
    y = b.gemm(b.relu(b.gemm(y, 6, 5)), 5, 2)
    model = b.model([y], {"x": ["batch", 6], "z": ["batch", 6]})
    (located,) = locate_chains(model)
    box = Box(np.zeros((1, 1)), np.ones((1, 1)))
    domain = Ranges(model, {"x": box, "z": box}).chain_domain(located)
    assert domain.origin is None
    assert domain.box.upper.max() == 2.0


def test_domain_of_an_unbounded_input_is_infinite() -> None:
    b = Builder()
    model = b.model([b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    domain = Ranges(model, {}).chain_domain(located)
    assert not domain.box.finite
    assert domain.box.lower.shape == (6,)


def test_deep_graphs_need_no_deep_recursion() -> None:
    b = Builder()
    y = "x"
    for _ in range(3000):
        y = b.node("Identity", y)
    model = b.model([b.gemm(b.relu(b.gemm(y, 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    box = Box(np.zeros((1, 6)), np.ones((1, 6)))
    assert Ranges(model, {"x": box}).chain_domain(located).origin is not None


def test_points_are_taken_back_into_the_bounds_of_every_place_of_a_batch() -> None:
    """Where these have nothing in common there are none."""
    b = Builder()
    model = b.model([b.gemm(b.relu(b.gemm("x", 3, 5)), 5, 2)], {"x": [2, 3]})
    (located,) = locate_chains(model)
    low, high = np.array([[0.0] * 3, [0.5] * 3]), np.array([[1.0] * 3, [2.0] * 3])
    for lower, upper, left in ((low, high, 2), (low, high - [[0.75], [0.0]], 0)):
        domain = Ranges(model, {"x": Box(lower, upper)}).chain_domain(located)
        assert domain.origin is not None
        points = domain.origin.to_graph(np.array([[0.1] * 3, [1.9] * 3]))
        assert len(points) == left
        assert (points >= lower.max(axis=0)).all()
        assert (points <= upper.min(axis=0)).all()
