"""A pass for Olive, and the package configuration that tells Olive of it.

from olive.workflows import run
from onnx_exact.integrations.olive import package_config

run(
    {
        "input_model": {"type": "ONNXModel", "model_path": "in.onnx"},
        "passes": {"exact": {"type": "OnnxExactCompression", "domain": "0:1"}},
        "output_dir": "out",
    },
    package_config=package_config(),
)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from onnx_exact import pipeline
from onnx_exact.methods import DEFAULT_MAX_DEVIATION, GOALS, METHODS, REDUCTIONS

PASS = "OnnxExactCompression"


def package_config() -> dict[str, Any]:
    """The installed Olive's own list of passes with this one added.

    `olive.workflows.run` takes it as `package_config`, which replaces Olive's own list.
    """
    config: dict[str, Any] = json.loads(
        Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8")
    )
    config["passes"][PASS] = {
        "module_path": f"{__name__}.{PASS}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
        "supported_algorithms": [],
        "supported_quantization_encodings": [],
    }
    return config


class OnnxExactCompression(Pass):  # type: ignore[misc]
    """Makes ReLU networks in an ONNX model smaller without changing what they compute."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "domain": PassConfigParam(
                type_=str | list[str],
                default_value=None,
                description="where the model has to stay the same, as for --domain; default: what"
                " its metadata say, else every finite input",
            ),
            "method": PassConfigParam(
                type_=str,
                default_value=METHODS[0],
                description=f"how units are decided: {', '.join(METHODS)}",
            ),
            "time_limit": PassConfigParam(
                type_=float, default_value=None, description="seconds for everything; none for null"
            ),
            "samples": PassConfigParam(
                type_=str, default_value=None, description="a file of points to look at as well"
            ),
            "reductions": PassConfigParam(
                type_=str,
                default_value=REDUCTIONS[0],
                description=f"what is done with stable units: {', '.join(REDUCTIONS)}",
            ),
            "max_deviation": PassConfigParam(
                type_=float,
                default_value=DEFAULT_MAX_DEVIATION,
                description="how far a rewrite may move a value, in units of the model's rounding",
            ),
            "goal": PassConfigParam(
                type_=str,
                default_value=GOALS[0],
                description=f"what the result is for: {', '.join(GOALS)}",
            ),
            "seed": PassConfigParam(
                type_=int, default_value=0, description="of every random choice"
            ),
            **get_external_data_config(),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        target = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        new, _ = pipeline.optimize(
            model.model_path,
            domain=config.domain,
            method=config.method,
            time_limit=config.time_limit,
            samples=config.samples,
            reductions=config.reductions,
            max_deviation=config.max_deviation,
            goal=config.goal,
            seed=config.seed,
        )
        return model_proto_to_olive_model(new, target, config)
