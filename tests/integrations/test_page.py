"""The code of docs/integrations.md runs: each block behind `<!-- python [PACKAGE] -->`."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from tests.small_network import network

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^<!-- python ?(\w*) -->\n```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_every_block_of_code_is_marked() -> None:
    assert len(BLOCKS) == PAGE.count("```python") == 4


@pytest.mark.parametrize(("package", "code"), BLOCKS)
def test_code_of_the_page_runs(
    package: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    network(tmp_path / "in.onnx")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/integrations.md", "exec"), {})
    for path in tmp_path.rglob("out*.onnx"):
        onnx.checker.check_model(path)
