"""The figure of a report: as many units as the report has, and one line where it can't be drawn."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from onnx_exact.errors import UsageError
from onnx_exact.report.report import ANALYZE
from tests.report.test_report import CHAIN, REPORT


def test_bars_are_as_long_as_there_are_units() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figure = dataclasses.replace(
        REPORT, chains=(dataclasses.replace(CHAIN, name="$x_1$ \\frac"),)
    ).plot()
    verdicts, fates = figure.axes
    widths = {
        bars.get_label(): [bar.get_width() for bar in bars]
        for axes in (verdicts, fates)
        for bars in axes.containers
    }
    assert widths["stably inactive"] == [300, 0]
    assert widths["undecided"] == [10, 0]
    assert widths["kept"] == [660, 10]
    assert widths["merged"] == [40, 0]
    figure.canvas.draw()
    assert len(dataclasses.replace(REPORT, command=ANALYZE).plot().axes) == 1


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'onnx-exact\[plot\]'"):
        REPORT.plot()
