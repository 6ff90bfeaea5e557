"""What is known of tensors takes little memory, however large the images are."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.room import ENTRY_BYTES, FACT_BYTES, Room
from onnx_exact.graph.ranges import Ranges
from onnx_exact.network import Box
from tests.graph.build import Builder, run

SIDE, DEPTH = 300, 4


def convolutions(side: int, depth: int) -> ModelProto:
    """Convolutions of 16 channels, one on another, then the largest entry of each channel."""
    b, tensor, channels = Builder(seed=3), "x", 3
    for _ in range(depth):
        tensor = b.relu(b.node("Conv", tensor, b.weight(16, channels, 3, 3), pads=[1] * 4))
        channels = 16
    b.node("GlobalMaxPool", tensor, outputs=["y"])
    return b.model(["y"], {"x": [1, 3, side, side]})


def box_of(side: int) -> Box:
    """Bounds that differ from entry to entry."""
    low = np.random.default_rng(5).uniform(size=(1, 3, side, side))
    return Box(low, low + 0.1)


@pytest.fixture(scope="module")
def images() -> ModelProto:
    return convolutions(SIDE, DEPTH)


def test_intervals_of_a_graph_of_large_images_stay_within_their_room(images: ModelProto) -> None:
    ranges = Ranges(images, {"x": box_of(SIDE)})
    ranges.of("y")
    kept = [ranges.of(name) for node in images.graph.node for name in node.output]
    assert kept[0].lower.shape == (1, 16, SIDE, SIDE)
    assert kept[-2].lower.shape == (1, 16, 1, 1)
    assert sum(ENTRY_BYTES * box.lower.size for box in kept) <= FACT_BYTES


def test_bounds_by_channel_hold_in_onnxruntime(images: ModelProto) -> None:
    box = box_of(SIDE)
    found = Ranges(images, {"x": box}).of("y")
    for share in (0.0, 0.3, 1.0):
        point = box.lower + share * (box.upper - box.lower)
        (y,) = run(images, {"x": point.astype(np.float32)})
        assert (found.lower <= y).all()
        assert (y <= found.upper).all()


def test_small_images_keep_bounds_entry_by_entry_in_whatever_order_they_are_asked_for() -> None:
    small = convolutions(8, 2)
    first, second = (Ranges(small, {"x": box_of(8)}) for _ in range(2))
    last = small.graph.node[-2].output[0]
    first.of(small.graph.node[0].output[0])
    assert first.of(last).lower.shape == (1, 16, 8, 8)
    assert np.array_equal(first.of(last).lower, second.of(last).lower)


def test_room_that_is_freed_can_be_used_again() -> None:
    room, most = Room(), FACT_BYTES // (2 * ENTRY_BYTES)
    large = Interval(np.zeros((1, 2, most // 2)), np.ones((1, 2, most // 2)))
    assert room.keep("a", large).lower.size == most
    assert room.keep("b", large).lower.shape == (1, 2, 1)
    room.free("a")
    room.free("b")
    assert room.keep("b", large).lower.size == most


def test_interval_with_more_channels_than_there_is_room_for_becomes_one_bound() -> None:
    shape = (1, FACT_BYTES // ENTRY_BYTES)
    wide = Interval(np.zeros(shape), np.ones(shape))
    assert Room().keep("a", wide).lower.shape == (1, 1)
