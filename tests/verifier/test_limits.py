"""Whatever a certificate or a model of a few kilobytes asks for, memory and work are bounded."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_exact.errors import NotVerifiedError, OnnxExactError, UncheckedError
from onnx_exact.verified import verify
from onnx_exact.verifier.trees import _boxes, _paths
from tests.verifier.build import Written, branched, gemm_model, model_of, npy, tiny, write

MEGABYTES = 2**20


def calls_of(action: Callable[[], object]) -> int:
    """How often functions are called and left: what takes long, whatever the machine."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def refused_within(written: Written, megabytes: int) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(OnnxExactError) as caught:
            verify(written.old, written.new, written.certificate)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * MEGABYTES
    return str(caught.value)


@pytest.mark.parametrize("order", ["left", "right"])
def test_leaves_are_made_as_they_are_bounded(order: str, tmp_path: Path) -> None:
    """20,000 leaves of 3,072 sides would take a gigabyte at once."""
    rng = np.random.default_rng(0)
    layers: list[Any] = [
        (rng.normal(size=(4, 3072)).tolist(), [0.0] * 4, True),
        (rng.normal(size=(3, 4)).tolist(), [0.0] * 3, True),
    ]
    model = gemm_model(layers)
    head = {"widths": [4, 3], "relu": [True, True], "sources": [0, 1]}
    head |= {"result_widths": [4, 3], "result_relu": [True, True]}
    splits = 19_999
    nodes = [0, -1] * splits + [-1] if order == "right" else [0] * splits + [-1] * (splits + 1)
    arrays: dict[str, Any] = {
        f"c0_l{k}_{what}": np.zeros(n, np.int8)
        for k, n in enumerate((4, 3))
        for what in ("status", "proof")
    }
    arrays |= {f"c0_m{k}_unit": np.arange(n, dtype=np.int32) for k, n in enumerate((4, 3))}
    arrays |= {"c0_t0_units": np.array([0], np.int32), "c0_t0_positive": np.array([True])}
    arrays["c0_t0_nodes"] = np.array(nodes, np.int16)
    head["trees"] = [{"kind": "box", "layer": 1}]
    domain = {"x": {"lower": 0.0, "upper": 1.0}}
    written = write(tmp_path, model, model, head, arrays, domain)
    assert "a tree does not exclude" in refused_within(written, 200)


def test_the_leaves_of_a_tree_are_those_of_its_splits() -> None:
    """Held to a recursion that copies every box."""

    def leaves(nodes: list[int], low: Any, high: Any) -> list[Any]:
        side = nodes.pop(0)
        if side < 0:
            return [(low.tolist(), high.tolist())]
        middle = 0.5 * low[side] + 0.5 * high[side]
        left, right = high.copy(), low.copy()
        left[side] = right[side] = middle
        return leaves(nodes, low, left) + leaves(nodes, right, high)

    rng = np.random.default_rng(3)
    for _ in range(50):
        nodes = random_tree(rng, 0)
        low = rng.normal(size=3)
        high = low + rng.random(3)
        found = [(a.tolist(), b.tolist()) for a, b in _boxes(nodes, low, high)]
        assert found == leaves(nodes.copy(), low, high)


def random_tree(rng: np.random.Generator, depth: int) -> list[int]:
    if depth > 6 or rng.random() < 0.4:
        return [-1]
    return [int(rng.integers(3)), *random_tree(rng, depth + 1), *random_tree(rng, depth + 1)]


def test_the_paths_of_a_tree_fix_both_signs_of_every_split() -> None:
    nodes = [(0, 1), (1, 2), None, None, (0, 3), None, None]
    assert [(kept, path.copy()) for kept, path in _paths(nodes, 8)] == [
        (0, [((0, 1), 0), ((1, 2), 0)]),
        (1, [((0, 1), 0), ((1, 2), 1)]),
        (0, [((0, 1), 1), ((0, 3), 0)]),
        (1, [((0, 1), 1), ((0, 3), 1)]),
    ]
    with pytest.raises(NotVerifiedError, match="one multiplier for each"):
        list(_paths(nodes, 7))


def test_more_work_than_any_honest_certificate_asks_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnx_exact.verifier.clock.MOST_SIDES", 5)
    written = branched(tmp_path, "box")
    with pytest.raises(UncheckedError, match="too many leaves"):
        verify(written.old, written.new, written.certificate)


BOMBS: dict[str, tuple[str, bytes]] = {
    "points": ("c0_witnesses", npy(np.zeros((2**22, 2), np.float32))),
    "slopes": ("c0_l1_slopes_unit", npy(np.zeros(2**24, np.int32))),
    "header": ("header", npy(np.zeros(2**26, np.uint8))),
    "nesting": ("header", npy(np.frombuffer(b"[" * 2**22, np.uint8))),
    "lists": ("header", npy(np.frombuffer(b"[" + b"[]," * 2**22 + b"1]", np.uint8))),
    "a negative size": (
        "c0_witnesses",
        npy(np.zeros((0, 2), np.float32)).replace(b"(0, 2)", b"(-3,2)") + b"\0" * 2**27,
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_zip_bomb_is_not_unpacked(what: str, tmp_path: Path) -> None:
    written = tiny(tmp_path)
    name, data = BOMBS[what]
    written.member(f"{name}.npy", data)
    assert written.certificate.stat().st_size < MEGABYTES
    refused_within(written, 100)


def test_a_model_of_huge_shapes_is_refused(tmp_path: Path) -> None:
    """A constant that is expanded to 2^40 entries in a file of a few hundred bytes."""
    written = tiny(tmp_path)
    tensors = [
        numpy_helper.from_array(np.ones(1, np.float32), "c"),
        numpy_helper.from_array(np.array([1, 2**40]), "s"),
    ]
    for nodes in (
        [helper.make_node("Expand", ["c", "s"], ["y"])],
        [
            helper.make_node("Expand", ["c", "s"], ["e"]),
            helper.make_node("Gemm", ["e", "x"], ["y"]),
        ],
    ):
        model = model_of(nodes, tensors, ["N", 2], ["N", 1])
        onnx.save(model, written.new)
        from onnx_exact.verifier.model import Model

        mark = {"sha256": Model(written.new, "the result").sha256, "bytes": 0}
        refused_within(written.changed({"result": mark}), 100)


def test_a_model_whose_metadata_nest_deeply_is_refused(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    model = onnx.load(written.new)
    model.metadata_props[0].value = "[" * 200_000
    onnx.save(model, written.new)
    from onnx_exact.verifier.model import Model

    mark = {"sha256": Model(written.new, "the result").sha256, "bytes": 0}
    refused_within(written.changed({"result": mark}), 100)


def test_nodes_in_a_circle_or_backwards_are_read_or_refused_in_time(tmp_path: Path) -> None:
    count = 20_000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    model = model_of(nodes[::-1], [], ["N", 2], ["N", 2])
    onnx.save(model, tmp_path / "backwards.onnx")
    from onnx_exact.verifier.model import Model

    def read_backwards() -> None:
        assert Model(tmp_path / "backwards.onnx", "a model").nodes[0].input[0] == "x"

    def refuse_a_circle() -> None:
        with pytest.raises(OnnxExactError, match="cannot be read as a model"):
            Model(tmp_path / "circle.onnx", "a model")

    assert calls_of(read_backwards) < 200 * count
    nodes[0].input[0] = "t5"
    onnx.save(model_of(nodes, [], ["N", 2], ["N", 2]), tmp_path / "circle.onnx")
    assert calls_of(refuse_a_circle) < 200 * count


def test_identities_in_a_row_are_no_recursion(tmp_path: Path) -> None:
    count = 5_000
    nodes = [helper.make_node("Identity", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    nodes.append(helper.make_node("Mul", ["x", f"t{count}"], ["y"]))
    tensors = [numpy_helper.from_array(np.ones(1, np.float32), "t0")]
    onnx.save(model_of(nodes, tensors, ["N", 2], ["N", 2]), tmp_path / "m.onnx")
    from onnx_exact.verifier.model import Model

    found = Model(tmp_path / "m.onnx", "a model").numbers(f"t{count}")
    assert found is not None
    assert json.dumps(found.tolist()) == "[1.0]"
