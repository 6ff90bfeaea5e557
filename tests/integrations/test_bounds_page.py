"""The recipes of docs/bounds.md run, and their answers are those of the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_exact
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.read import read_model

PAGE = (Path(__file__).parents[2] / "docs" / "bounds.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^<!-- python (\w+) -->\n```python\n(.*?)^```$", PAGE, re.M | re.S))


MODELS = Path(__file__).parents[2] / "models"
# Over [0, 1], by the record of `benchmarks.consumers` for the original.
LARGEST_MARGIN = 29.141


def test_every_recipe_is_marked() -> None:
    assert len(RECIPES) == PAGE.count("```python") == 3


@pytest.mark.parametrize("package", RECIPES)
# What the packages themselves warn of is theirs.
@pytest.mark.filterwarnings("ignore")
def test_recipe_gives_the_answer_of_the_network(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    # Marabou answers wrongly where weights are nearly 0.
    name = "digits_2x32" if package == "maraboupy" else "digits_2x32_l1"
    Path("in.onnx").write_bytes((MODELS / f"{name}.onnx").read_bytes())
    onnx_exact.optimize_file("in.onnx", "out.onnx", domain="0:1", bounds="bounds.npz")
    found: dict[str, Any] = {}
    exec(compile(RECIPES[package], f"docs/bounds.md: {package}", "exec"), found)
    (located,) = locate_chains(read_model("in.onnx").model)
    rng = np.random.default_rng(0)
    values = located.chain.forward(rng.integers(0, 2, (20_000, 64)).astype(np.float64))
    seen = float((values[:, 0] - values[:, 1]).max())
    if package == "maraboupy":
        assert found["answer"] == "unsat"
        code = RECIPES[package].replace("1000.0", repr(seen / 2))
        exec(compile(code, "docs/bounds.md: reached", "exec"), found)
        assert found["answer"] == "sat"
    else:
        # The programs' own answer without any bounds.
        assert found["best"] == pytest.approx(LARGEST_MARGIN, abs=1e-3)
        assert seen < found["best"] + 1e-5
