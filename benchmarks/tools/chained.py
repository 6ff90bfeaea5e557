"""The tools that a model may go through before and after this one, each as a function on files.

None of them is needed by the package; `TOOLS` names what has to be installed for each.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

# Points that static quantisation is calibrated with.
CALIBRATION = 32


@dataclass(frozen=True)
class Tool:
    """A tool.

    Attributes:
        name: as in the tables.
        package: whose version goes into the record.
        same: whether what it gives is meant to be the same function, up to rounding.
        apply: from a file to a file that does not exist yet.
    """

    name: str
    package: str
    same: bool
    apply: Callable[[Path, Path], None]


def _onnxslim(source: Path, target: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source), str(target))


def _onnxsim(source: Path, target: Path) -> None:
    import onnxsim

    model, checked = onnxsim.simplify(onnx.load(source))
    if not checked:
        raise RuntimeError("onnxsim's own check failed")
    onnx.save(model, target)


def _onnxscript(source: Path, target: Path) -> None:
    from onnxscript import optimizer

    onnx.save(optimizer.optimize(onnx.load(source)), target)


def _onnx_ir(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnx_ir.passes import common

    passes = ir.passes.Sequential(
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.TopologicalSortPass(),
    )
    ir.save(passes(ir.load(source)).model, target)


def _onnx_ir_clearing(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnx_ir.passes import common

    ir.save(common.ClearMetadataAndDocStringPass()(ir.load(source)).model, target)


def _onnxoptimizer(source: Path, target: Path) -> None:
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(source)), target)


def _onnxruntime(level: str) -> Callable[[Path, Path], None]:
    def apply(source: Path, target: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])

    return apply


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(source), str(target))


def _qdq(source: Path, target: Path) -> None:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    (spec,) = onnxruntime.InferenceSession(str(source)).get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    rng = np.random.default_rng(0)

    class Points(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            points = rng.random((CALIBRATION, *shape)).astype(np.float32)
            self._feeds = iter([{spec.name: point} for point in points])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    quantize_static(str(source), str(target), Points(), quant_format=QuantFormat.QDQ)


def _float16(source: Path, target: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(model, target)


TOOLS: tuple[Tool, ...] = (
    Tool("onnxslim", "onnxslim", True, _onnxslim),
    Tool("onnxsim", "onnxsim", True, _onnxsim),
    Tool("onnxscript.optimizer", "onnxscript", True, _onnxscript),
    Tool("onnx_ir common passes", "onnx-ir", True, _onnx_ir),
    Tool("onnx_ir ClearMetadata", "onnx-ir", True, _onnx_ir_clearing),
    Tool("onnxoptimizer", "onnxoptimizer", True, _onnxoptimizer),
    Tool("onnxruntime, basic", "onnxruntime", True, _onnxruntime("ORT_ENABLE_BASIC")),
    Tool("onnxruntime, extended", "onnxruntime", True, _onnxruntime("ORT_ENABLE_EXTENDED")),
    Tool("float16", "onnxruntime", False, _float16),
    Tool("dynamic quantisation", "onnxruntime", False, _dynamic),
    Tool("QDQ quantisation", "onnxruntime", False, _qdq),
)
BY_NAME: Mapping[str, Tool] = {tool.name: tool for tool in TOOLS}


def apply(tool: Tool, source: Path, target: Path) -> str:
    """Runs a tool, whatever it prints kept back; why it gave no file, empty where it did."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            tool.apply(source, target)
    except Exception as error:  # whatever a tool raises is its answer
        said = " ".join(str(error).split())[:160] or "no reason given"
        return f"{type(error).__name__}: {said}"
    return "" if target.exists() else "it wrote no file and said nothing"
