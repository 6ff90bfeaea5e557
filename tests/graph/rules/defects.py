"""Where a runtime does not do what the standard says: such results are not compared."""

from __future__ import annotations

from tests.graph.rules.combination import Combination


def is_wrong(runtime: str, combination: Combination) -> bool:
    """Whether this runtime is known to give something else than the operator's definition."""
    known = combination.attributes
    if runtime != "onnx.reference":
        return False
    match combination.op:
        case "BatchNormalization":
            # It normalises by the batch before training had an attribute.
            return combination.opset < 14
        case "GlobalMaxPool":
            # It drops the axes of the image.
            return True
        case "MaxPool" | "AveragePool":
            # 0 where no window is, with ceil_mode; VALID with dilations is placed wrongly.
            shifted = known.get("auto_pad") == "VALID" and known.get("dilations", [1]) != [1]
            return shifted or bool(known.get("ceil_mode"))
    return False
