"""What earlier versions of onnx get wrong, so that nothing is held to it there."""

from __future__ import annotations

import onnx
import pytest

# Its reference fails, or is wrong, for Conv with auto_pad, Gather and OneHot of odd inputs, and its
# checker differs.
OLD_ONNX = tuple(int(part) for part in onnx.__version__.split(".")[:2]) < (1, 23)
needs_new_onnx = pytest.mark.skipif(OLD_ONNX, reason="onnx before 1.23 gets it wrong")


def skip_where_onnx_is_wrong(wrong: bool) -> None:
    """Skips a case that earlier versions of onnx get wrong."""
    if OLD_ONNX and wrong:
        pytest.skip("onnx before 1.23 gets it wrong")
