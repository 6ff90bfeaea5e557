"""The boxes of VNN-LIB files of version 2, which the package vnnlib reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from domain_inputs import TWO, Input

from onnx_exact.domains import resolve_domain
from onnx_exact.domains.vnnlib import read_vnnlib
from onnx_exact.errors import DomainError

VERSION_2 = """; a comment
(vnnlib-version <2.0>)
(declare-network net
  (declare-input A float32 [1,2])
  (declare-input B float32 [])
  (declare-output Y float32 [2])
)
"""


@pytest.fixture
def version_2(tmp_path: Path) -> Any:
    pytest.importorskip("vnnlib")

    def write(*assertions: str, header: str = VERSION_2) -> Path:
        path = tmp_path / "spec.vnnlib"
        path.write_text(header + "\n".join(f"(assert {a})" for a in assertions))
        return path

    return write


AB = (Input("x", (None, 2)), Input("b", ()))


def test_version_2_bounds_inputs_of_several_shapes(version_2: Any) -> None:
    path = version_2(
        "(and (<= A[0,0] 50.0) (>= A[0,0] -0.1))",
        "(<= (* -1.0 A[0,1]) 0.0)",
        "(== B 0.25)",
        "(or (<= Y[0] -3.0) (>= A[0,1] 1.0))",
        "(<= (+ A[0,0] A[0,1]) 1.0)",
        "(!= B 1.0)",
        "(<= A[0,1] (- 3.0 1.0))",
    )
    boxes = resolve_domain(path, AB, {}).boxes
    assert boxes["x"].lower.tolist() == [[-0.1, 0.0]]
    assert boxes["x"].upper.tolist() == [[50.0, 2.0]]
    assert (boxes["b"].lower, boxes["b"].upper) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("assertion", "inputs", "words"),
    [
        ("(<= A[0,0] B", AB, "syntax error"),
        ("(<= A[0,0] 3)", AB, "line 8"),
        ("(<= A[0,7] 3.0)", AB, "line 8"),
        ("(and (<= B 0.0) (>= B 1.0))", AB, "empty"),
        ("(<= B 0.0)", TWO, "declares 2 inputs"),
        ("(<= B 0.0)", (Input("x", (1, 3)), Input("b", ())), "1 or 3 bounds"),
        ("(" * 20_000, AB, "nested"),
    ],
)
def test_version_2_that_does_not_fit_is_refused_in_one_line(
    version_2: Any, assertion: str, inputs: tuple[Input, ...], words: str
) -> None:
    with pytest.raises(DomainError) as caught:
        resolve_domain(version_2(assertion), inputs, {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_version_2_of_two_networks_is_refused(version_2: Any) -> None:
    network = (
        "(declare-network {0} (declare-input X{0} float32 [1])(declare-output Y{0} float32 [1]))"
    )
    header = "(vnnlib-version <2.0>)" + network.format("f") + network.format("g")
    with pytest.raises(DomainError, match="2 networks"):
        resolve_domain(version_2("(<= Xf[0] 0.0)", header=header), TWO, {})


def test_version_2_without_the_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vnnlib", None)
    path = tmp_path / "spec.vnnlib"
    path.write_text(VERSION_2)
    with pytest.raises(DomainError, match=r"pip install 'onnx-exact\[vnnlib\]'"):
        read_vnnlib(path, AB)
