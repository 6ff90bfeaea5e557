"""The report as a page: what it says, that no name can break it, and what a browser makes of it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.report import Refusal, Report
from onnx_exact.report.html import to_html
from onnx_exact.report.words import VERDICTS
from tests.labels.graphs import built
from tests.report.test_report import CHAIN, REPORT
from tests.small_network import network

MODELS = Path(__file__).parents[2] / "models"
BROWSER = shutil.which("chromium")
# Nothing of the browser's own may reach for a network.
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HOSTILE = "</title><script>alert(1)</script>\"'<b>&amp;"


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_page_shows_the_sizes_the_verdicts_and_what_became_of_the_units() -> None:
    page = Page(to_html(REPORT))
    for shown in ("1,000 → 660", "794,000 → 524,040", "-34.0%", "in.onnx", "1.2.3"):
        assert shown in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels[:4] == [
        *("300 stably inactive", "100 stably active", "590 unstable", "10 undecided"),
    ]
    assert labels[4:] == ["660 kept", "300 removed", "40 merged", "10 kept"]


def test_bars_are_as_long_as_their_layers_are_wide() -> None:
    widths = re.findall(r'class=bar style="width:([\d.]+)%"', to_html(REPORT))
    assert [float(width) for width in widths] == [100.0, 100.0, 1.0]


def test_page_shows_the_guarantee_the_deviation_the_stages_and_the_refusals() -> None:
    text = Page(to_html(REPORT)).text
    for shown in ("3.25e-06", "2.5e-08", "worst-case bound", "512", "0.25 s", "too far off"):
        assert shown in text


def test_names_from_a_file_are_text_wherever_they_stand() -> None:
    chain = dataclasses.replace(CHAIN, name=HOSTILE, dtype=HOSTILE)
    report = dataclasses.replace(
        REPORT,
        source=HOSTILE,
        chains=(chain,),
        domain={HOSTILE: {"lower": 0.0, "upper": 1.0}},
        warnings=(HOSTILE,),
        refused=(Refusal(HOSTILE, None, HOSTILE, HOSTILE, {}),),
        seconds={HOSTILE: 1.0},
    )
    page = Page(to_html(report))
    assert "script" not in page.tags
    assert page.tags.count("b") == Page(to_html(REPORT)).tags.count("b")
    assert page.text.count("alert(1)") >= 6


def test_page_needs_no_other_file() -> None:
    page = Page(to_html(REPORT))
    assert not {"link", "img", "script", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href")]


def test_analysis_shows_verdicts_and_no_fate(tmp_path: Path) -> None:
    page = Page(to_html(onnx_exact.analyze(network(tmp_path / "in.onnx"), domain="0:1")))
    assert "stably inactive" in page.text
    assert "kept" not in page.text


def test_model_without_chains_says_so() -> None:
    empty = dataclasses.replace(REPORT, chains=(), refused=())
    text = Page(to_html(empty)).text
    assert "No chain" in text
    assert "Not done" not in text


def test_long_domain_is_cut_with_a_count() -> None:
    box = {"x": {"lower": np.zeros((2, 50)).tolist(), "upper": [[None] * 50] * 2}}
    text = Page(to_html(dataclasses.replace(REPORT, domain=box))).text
    assert "0, 0, 0, 0, ... (100 numbers)" in text
    assert "none, none, none, none, ... (100 numbers)" in text


@pytest.mark.parametrize("name", ["out.html", "OUT.HTM"])
def test_name_of_the_report_decides_its_format(tmp_path: Path, name: str) -> None:
    model = network(tmp_path / "in.onnx")
    report = tmp_path / name
    asked = [str(model), str(tmp_path / "out.onnx"), "--domain", "0:1", "--report", str(report)]
    assert main(["optimize", *asked]) == 0
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def shown_by_browser(report: Report, folder: Path) -> str:
    page = folder / "report.html"
    page.write_text(to_html(report), encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={folder}/profile", "--dump-dom", page.as_uri()],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("utf-8")


def chain(folder: Path) -> Report:
    """Of a network all of whose units are decided."""
    return onnx_exact.optimize_file(MODELS / "digits_2x32_l1.onnx", folder / "out.onnx")


def convolutions(folder: Path) -> Report:
    """Of a network with convolutions and no chain."""
    onnx.save(built("residual"), folder / "in.onnx")
    return onnx_exact.optimize_file(
        folder / "in.onnx", folder / "out.onnx", domain="0:1", align=1, goal="verify"
    )


def undecided(folder: Path) -> Report:
    """Of a network some of whose units stay open."""
    return onnx_exact.analyze(MODELS / "mnist_5x100_l1.onnx", method="bounds")


def hostile(folder: Path) -> Report:
    """With a name that would be markup."""
    return dataclasses.replace(REPORT, chains=(dataclasses.replace(CHAIN, name=HOSTILE),))


# What a browser has to show of each: words, and how it draws the verdicts.
SEEN = {
    chain: ("stably active", "64 \u2192", "In words"),
    convolutions: ("Channels", "convolution", "by channels", "No chain of affine maps"),
    undecided: ("undecided", "layer 5", "nothing was changed"),
    hostile: (HOSTILE,),
}


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("make", SEEN)
def test_browser_shows_what_the_page_says(make: Callable[[Path], Report], tmp_path: Path) -> None:
    report = make(tmp_path)
    shown = Page(shown_by_browser(report, tmp_path))
    written = Page(to_html(report))
    assert shown.text == written.text
    assert shown.tags == written.tags


@pytest.mark.parametrize("make", SEEN)
def test_page_of_a_real_run_says_what_was_found(
    make: Callable[[Path], Report], tmp_path: Path
) -> None:
    report = make(tmp_path)
    page = Page(to_html(report))
    for words in SEEN[make]:
        assert words in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    for name in VERDICTS:
        for layer in (layer for found in report.chains for layer in found.layers):
            count = getattr(layer, name)
            assert not count or f"{count:,} {VERDICTS[name]}" in labels
