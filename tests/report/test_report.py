"""The report as JSON and as text."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from onnx_exact.certify.summary import Certified
from onnx_exact.report import (
    ChainReport,
    FormReport,
    LayerReport,
    Refusal,
    Report,
    SliceReport,
    Totals,
    to_json,
    to_json_dict,
    to_text,
)
from onnx_exact.report.text import SHOWN_REFUSALS, WIDTH
from onnx_exact.validate import ChainDeviation, Deviation

LAYERS = (
    LayerReport(1000, 300, 100, 590, 10, removed=300, merged=40, folded=0, units_after=660),
    LayerReport(10, units_after=10, relu=False),
)
TOTALS = Totals(
    *(1000, 660, 794_000, 524_040, 795_010, 524_710, 3_180_300, 2_099_000),
    stably_inactive=300,
    stably_active=100,
    unstable=590,
    undecided=10,
    by_solver=7,
    proved=983,
)
CHAIN = ChainReport(
    "fc1[0]..fc2",
    LAYERS,
    ("fc1[0]", "relu", "fc2"),
    unread_inputs=(0, 27),
    inputs=784,
    rounded=True,
    slice=SliceReport(1, 784, 1, 660, 2640),
    forms=(
        FormReport(
            0, "split", "saves 6,400 connections", {"rounding_chain": 2e-6, "rounding_split": 1e-6}
        ),
        FormReport(1, "chain", "for a reason", {"connections_chain": 9.0}),
    ),
)
REPORT = Report(
    command="optimize",
    version="1.2.3",
    source="in.onnx",
    source_sha256="ab" * 32,
    domain={"x": {"lower": 0.0, "upper": 1.0}},
    domain_source="--domain 0:1",
    domain_declared=True,
    method="auto",
    seed=0,
    changed=True,
    chains=(CHAIN,),
    totals=TOTALS,
    deviation=Deviation(observed_max_abs=3.25e-6, points=512, worst_output="logits"),
    seconds={"read": 0.25, "decide": 1.5},
    refused=(Refusal("fc1[0]..fc2", 0, "merge 2 units", "too far off", {"error": math.inf}),),
    certified=Certified(2.5e-8, "logits", True, 2e-3, 1e-3),
)


def changed(**fields: Any) -> Report:
    return dataclasses.replace(REPORT, **fields)


def test_json_has_the_names_that_scripts_rely_on() -> None:
    data = json.loads(json.dumps(to_json_dict(REPORT), allow_nan=False))
    assert data["version"] == "1.2.3"
    assert data["source_sha256"] == "ab" * 32
    assert data["domain"] == {"x": {"lower": 0.0, "upper": 1.0}}
    assert data["method"] == "auto"
    chain = data["chains"][0]
    assert (chain["inputs"], chain["unread_inputs"]) == (784, [0, 27])
    assert chain["slice"] == {
        "start": 1,
        "stop": 784,
        "inputs": 1,
        "connections": 660,
        "bytes": 2640,
    }
    assert chain["forms"][1] == {
        "layer": 1,
        "form": "chain",
        "reason": "for a reason",
        "numbers": {"connections_chain": 9.0},
    }
    layer = chain["layers"][0]
    for name, value in {
        "units": 1000,
        "stably_inactive": 300,
        "stably_active": 100,
        "unstable": 590,
        "undecided": 10,
        "units_after": 660,
    }.items():
        assert layer[name] == value
    for name in ("units", "connections", "parameters", "bytes"):
        assert data["totals"][f"{name}_before"] > data["totals"][f"{name}_after"] > 0
    for name in ("stably_inactive", "stably_active", "unstable", "undecided"):
        assert data["totals"][name] == layer[name]
    assert data["seconds"] == {"read": 0.25, "decide": 1.5, "total": 1.75}
    assert data["deviation"]["observed_max_abs"] == 3.25e-6
    assert data["refused"][0]["what"] == "merge 2 units"
    assert data["deviation"]["certified_max_abs"] == 2.5e-8
    assert data["deviation"]["certified_of"] == "logits"
    assert data["deviation"]["runtime_rounding_before"] == 2e-3
    assert data["deviation"]["runtime_rounding_after"] == 1e-3
    assert (data["totals"]["proved"], data["totals"]["by_solver"]) == (983, 7)


def test_json_has_null_for_numbers_that_are_not_finite_and_for_what_was_not_run() -> None:
    data = to_json_dict(
        changed(
            deviation=None, certified=None, totals=dataclasses.replace(TOTALS, units_after=None)
        )
    )
    assert data["refused"][0]["numbers"] == {"error": None}
    names = data["deviation"].pop("worst_case_bounds")
    assert set(data["deviation"].values()) == {None, 0}
    assert set(names) <= set(data["deviation"])
    assert data["totals"]["units_after"] is None


def test_chain_that_differs_more_than_its_rounding_explains_is_a_warning() -> None:
    seen = ChainDeviation("logits", observed=2e-3, rounding=1e-6, expected=1e-5, float64=1.5e-3)
    known = Deviation(3.25e-6, 512, "logits", (seen,))
    (chain,) = to_json_dict(changed(deviation=known))["deviation"]["chains"]
    assert chain == {
        "of": "logits",
        "observed": 2e-3,
        "rounding": 1e-6,
        "expected": 1e-5,
        "float64": 1.5e-3,
        "unexpected": True,
    }
    assert "Warning: tensor 'logits' differs by 0.002" in to_text(changed(deviation=known))
    usual = Deviation(3.25e-6, 512, "logits", (dataclasses.replace(seen, observed=1e-6),))
    assert "Warning" not in to_text(changed(deviation=usual))


def test_json_takes_numbers_of_numpy() -> None:
    layer = LayerReport(np.int64(3), unstable=np.int32(3))  # type: ignore[arg-type]
    data = to_json_dict(changed(chains=(ChainReport("c", (layer,)),), seed=np.int64(7)))
    assert json.loads(json.dumps(data))["chains"][0]["layers"][0]["unstable"] == 3


def test_measured_total_is_kept() -> None:
    assert to_json_dict(changed(seconds={"read": 1.0, "total": 9.0}))["seconds"]["total"] == 9.0


def test_text_of_the_json_file_reads_back() -> None:
    assert json.loads(to_json(REPORT)) == to_json_dict(REPORT)
    assert to_json(REPORT).endswith("}\n")


def test_name_that_is_no_utf_8_is_shown_with_a_replacement() -> None:
    assert to_json_dict(changed(source="a\udcff.onnx"))["source"] == "a?.onnx"


def test_warnings_are_in_both_reports() -> None:
    odd = changed(warnings=("the model is odd",))
    assert to_json_dict(odd)["warnings"] == ["the model is odd"]
    assert "Warning: the model is odd." in to_text(odd)


def test_text_shows_every_figure_and_fits_the_width() -> None:
    text = to_text(REPORT)
    for figure in ("1,000", "300", "660", "794,000", "524,040", "-34.0%", "3.25e-06", "512"):
        assert figure in text
    assert "fc1[0]..fc2" in text
    assert "decide 1.50" in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [20, 80])
def test_figures_are_never_cut_however_narrow_the_terminal(width: int) -> None:
    for unicode in (True, False):
        text = to_text(REPORT, width=width, unicode=unicode)
        tables = text.partition("Verdicts")[0]
        assert max(len(line) for line in tables.splitlines()) <= 80
        for figure in ("1,000", "undecided", "795,010", "2,099,000"):
            assert figure in tables
        assert "\u2026" not in text


def test_text_without_unicode_is_ascii_whatever_the_names_are() -> None:
    text = to_text(changed(chains=(ChainReport("ünit→", LAYERS),)), unicode=False)
    assert text.isascii()
    assert "?nit?" in text


def sentence(report: Report) -> str:
    return " ".join(to_text(report, width=1000).splitlines()[-1].split())


def test_last_line_says_what_was_proved_and_where() -> None:
    said = sentence(changed(totals=dataclasses.replace(TOTALS, by_solver=0)))
    assert said.startswith("Proved over the domain (--domain 0:1)")
    assert "same function over the reals" in said
    assert "rounding its merged and folded weights to float32" in said
    assert "moves the outputs by at most 2.5e-08 (worst-case bound)" in said
    # Rounded up.
    assert "worst-case bounds on what rounding in float32 adds: 0.0021 to the old network" in said


def test_last_line_names_the_tensor_where_it_is_not_the_output() -> None:
    inner = Certified(2.5e-8, "hidden", False, None, None)
    said = sentence(changed(certified=inner))
    assert (
        "moves tensor 'hidden' by at most 2.5e-08 (worst-case bound); what comes after that tensor"
        in said
    )
    assert "rounding in float32 adds" not in said


def test_last_line_says_where_no_bound_is_known() -> None:
    none = Certified(None, "logits", True, None, None)
    assert "no bound on the deviation of the outputs is known" in sentence(changed(certified=none))


def test_pure_removal_is_said_to_change_nothing_over_the_reals() -> None:
    layers = (dataclasses.replace(LAYERS[0], merged=0), LAYERS[1])
    zero = Certified(0.0, "logits", True, 2e-3, 1e-3)
    said = sentence(changed(chains=(ChainReport("c", layers),), certified=zero))
    assert "merged" not in said
    assert "over the reals: not a value of the outputs changes" in said


def test_unchanged_and_analyzed_models_are_said_to_be_so() -> None:
    assert "copy of the input" in sentence(changed(changed=False, deviation=None))
    said = sentence(changed(command="analyze", changed=False, deviation=None))
    assert "nothing was changed" in said
    assert "300 units are never positive" in said


def test_missing_domain_is_said_with_the_way_to_give_one() -> None:
    text = to_text(changed(domain_declared=False, domain_source="every finite input"))
    assert "No domain was given" in text
    assert "--domain LO:HI" in text


def test_long_list_of_refusals_is_cut_with_a_count() -> None:
    refusals = REPORT.refused * (SHOWN_REFUSALS + 3)
    text = to_text(changed(refused=refusals))
    assert text.count("merge 2 units") == SHOWN_REFUSALS
    assert "3 more" in text


def test_model_without_chains_is_said_to_have_none() -> None:
    assert "No chain" in to_text(changed(chains=(), changed=False))


def test_text_says_which_verdicts_rest_on_a_solver() -> None:
    assert "Of these 7 rest on claims of SCIP" in to_text(REPORT)
    assert "True if SCIP is right over" in to_text(REPORT)
    assert "Proved over" not in to_text(REPORT)
    none = dataclasses.replace(TOTALS, by_solver=0)
    assert "SCIP" not in to_text(changed(totals=none))
    assert "Proved over" in to_text(changed(totals=none))


def test_text_says_how_many_verdicts_are_proved() -> None:
    assert "983 fully proved" in to_text(REPORT)


def test_text_says_what_a_slice_of_the_inputs_would_save() -> None:
    text = " ".join(to_text(REPORT).split())
    assert "inputs 1 to 783 in front of it would save 1 input and 660 connections" in text
    none = dataclasses.replace(CHAIN, slice=None)
    assert "Slice" not in to_text(changed(chains=(none,)))


def test_text_says_which_form_layers_have_and_why() -> None:
    text = " ".join(to_text(REPORT).split())
    assert (
        "layer 1): split: saves 6,400 connections (evaluating it rounds off at most 1e-06" in text
    )
    assert "layer 2): chain: for a reason." in text


def test_text_counts_the_inputs_that_nobody_reads() -> None:
    assert "Unread inputs (chain fc1[0]..fc2): 2 of 784" in " ".join(to_text(REPORT).split())
    read = dataclasses.replace(CHAIN, unread_inputs=())
    assert "Unread inputs" not in to_text(changed(chains=(read,)))
