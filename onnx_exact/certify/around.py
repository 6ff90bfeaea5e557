"""A bound on how far the split form of a reduced chain is from its chain form.

Both have the layers of the chain form, h^l = max(W^l h^(l-1) + b^l, 0). In the split form a layer
reads, by a matrix that is stored with at most `off` of rounding, what the units S of the layer
before give it: these are linear as far as they are not negative, and off by max(-g, 0) elsewhere.
With e^l the difference of the outputs of layer l, and 0 at the inputs,

    e^l = |W^l_U| e^(l-1)_U + |M^l| e^(l-2) + |W^l_S| max(-L_S, 0) + off^l,

since a ReLU makes no difference larger; L are lower bounds on the pre-activations.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.network.affine import Array
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.split import Split


def split_deviation(bounds: Bounds, split: Split) -> Array:
    """Bounds on |split form - chain form| of each output; infinite where there is none.

    Args:
        bounds: on the pre-activations of the chain form.
        split: the same chain in the split form.
    """
    zero = np.zeros(split.chain.n_in)
    before, moved = zero, zero
    for index, (layer, bypass) in enumerate(
        zip(split.chain.layers, split.chain.bypasses, strict=True)
    ):
        n = layer.affine.n_in + before.size + 2
        found = reach(layer.affine.linear, moved)
        off = split.off[index]
        if bypass is not None and off is not None:
            around = split.around[index - 1]
            read = bounds.chain.layers[index].affine.weight[:, around]
            cut = np.maximum(-bounds.lower[index - 1][around], 0.0)
            found = found + reach(bypass, before) + reach(read, cut) + off
            n += int(around.sum())
        before, moved = moved, found * (1.0 + gamma(n))
    return moved
