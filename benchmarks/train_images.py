"""Trains two small convolutional networks, prunes them and writes them as ONNX files.

    python -m benchmarks.train_images mnist_cnn_l1 --out FILE.onnx
    python -m benchmarks.train_images cifar10_resnet_slim --out FILE.onnx

`mnist_cnn_l1`: two strided convolutions and two dense layers, an l1 penalty on all weights, then
all weights below 1e-3 set to 0. `cifar10_resnet_slim`: two residual blocks with batch
normalisation, an l1 penalty on the factors of the normalisation inside of the blocks (network
slimming: Liu et al., *Learning Efficient Convolutional Networks through Network Slimming*, 2017),
then those below a twentieth of the largest set to 0, with their shifts. Inputs are images in
[0, 1]; SGD with learning rate 0.02 and momentum 0.9, batches of 128, a tenth of the rate in the
last third. PyTorch is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.training import data
from benchmarks.training.data import BenchmarkError, Dataset
from benchmarks.training.export import (
    DOMAIN_KEY,
    DOMAIN_UNIT_BOX,
    INPUT_NAME,
    IR_VERSION,
    OPSET,
    OUTPUT_NAME,
    write_model,
)

if TYPE_CHECKING:
    import torch

LEARNING_RATE, MOMENTUM, BATCH, EVALUATION_BATCH = 0.02, 0.9, 128, 2_000
SMALLEST_WEIGHT = 1e-3
# Of the largest factor of a normalisation.
SMALLEST_FACTOR = 0.05


@dataclass(frozen=True)
class Recipe:
    """How one of the networks is trained.

    Attributes:
        data: the data set.
        image: channels, height and width.
        epochs, l1: of the training; what the penalty is on is for `penalised` to say.
        build: the network.
        penalised: parameters with a penalty.
        prune: what is set to 0 afterwards.
    """

    data: str
    image: tuple[int, int, int]
    epochs: int
    l1: float
    build: Callable[[], torch.nn.Sequential]
    penalised: Callable[[torch.nn.Module], list[torch.nn.Parameter]]
    prune: Callable[[torch.nn.Module], None]


def _plain() -> torch.nn.Sequential:
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(24 * 7 * 7, 48), nn.ReLU(), nn.Linear(48, 10)),
    )


def _residual() -> torch.nn.Sequential:
    from torch import nn

    def convolution(before: int, after: int, stride: int = 1) -> list[torch.nn.Module]:
        return [
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
        ]

    class Block(nn.Module):  # type: ignore[misc]
        """relu(x + b(relu(a(x)))), where a has channels of its own."""

        def __init__(self, channels: int, inner: int) -> None:
            super().__init__()
            self.inside = nn.Sequential(
                *convolution(channels, inner), nn.ReLU(), *convolution(inner, channels)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = torch.relu(x + self.inside(x))
            return made

    import torch

    return nn.Sequential(
        *(*convolution(3, 16, stride=2), nn.ReLU(), Block(16, 32)),
        *(*convolution(16, 32, stride=2), nn.ReLU(), Block(32, 48)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def _weights(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in network.parameters() if p.dim() > 1]


def _inner_factors(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [module.weight for module in _inner(network)]


def _inner(network: torch.nn.Module) -> list[Any]:
    """The normalisations inside of the blocks, which a ReLU follows."""
    return [module.inside[1] for module in network.modules() if hasattr(module, "inside")]


def _drop_small(network: torch.nn.Module) -> None:
    for weight in _weights(network):
        weight.data[weight.data.abs() < SMALLEST_WEIGHT] = 0.0


def _slim(network: torch.nn.Module) -> None:
    for module in _inner(network):
        size = module.weight.data.abs()
        gone = size <= SMALLEST_FACTOR * size.max()
        module.weight.data[gone] = 0.0
        module.bias.data[gone] = 0.0


RECIPES = {
    "mnist_cnn_l1": Recipe("mnist", (1, 28, 28), 12, 2e-4, _plain, _weights, _drop_small),
    "cifar10_resnet_slim": Recipe(
        "cifar10", (3, 32, 32), 9, 1.5e-2, _residual, _inner_factors, _slim
    ),
}


def train(name: str, dataset: Dataset) -> tuple[torch.nn.Sequential, float, float]:
    """The network, the share of the test set that it gets right, before and after pruning."""
    try:
        import torch
    except ImportError as error:
        raise BenchmarkError("training needs PyTorch: pip install torch==2.13.0") from error

    recipe, start = RECIPES[name], time.perf_counter()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = recipe.build()
    inputs = torch.tensor(dataset.train_inputs).reshape(-1, *recipe.image)
    labels = torch.tensor(dataset.train_labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    decay = [2 * recipe.epochs // 3]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, decay, 0.1)
    for epoch in range(recipe.epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            loss = loss + recipe.l1 * sum(p.abs().sum() for p in recipe.penalised(network))
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"{name}: epoch {epoch + 1}, {time.perf_counter() - start:.0f} s", flush=True)
    network.eval()
    before = accuracy(network, dataset, recipe.image)
    recipe.prune(network)
    return network, before, accuracy(network, dataset, recipe.image)


def accuracy(network: torch.nn.Module, dataset: Dataset, image: tuple[int, int, int]) -> float:
    """The share of the test set that a network gets right."""
    import torch

    right = 0
    with torch.no_grad():
        for i in range(0, len(dataset.test_inputs), EVALUATION_BATCH):
            part = torch.tensor(dataset.test_inputs[i : i + EVALUATION_BATCH])
            found = network(part.reshape(-1, *image)).argmax(dim=1).numpy()
            right += int((found == dataset.test_labels[i : i + EVALUATION_BATCH]).sum())
    return right / len(dataset.test_inputs)


class _Exporter:
    """Collects nodes and constants, module by module."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._count = 0

    def _add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        self._count += 1
        made = f"{op.lower()}_{self._count}"
        self.nodes.append(helper.make_node(op, inputs, [made], name=f"{made}_node", **attributes))
        return made

    def _constants(self, *values: torch.Tensor | None) -> list[str]:
        names = []
        for value in values:
            if value is not None:
                names.append(f"constant_{len(self.tensors)}")
                array = np.ascontiguousarray(value.detach().numpy())
                self.tensors.append(numpy_helper.from_array(array, names[-1]))
        return names

    def through(self, module: torch.nn.Module, x: str) -> str:
        """What a module makes of a tensor."""
        from torch import nn

        match module:
            case nn.Sequential():
                for inner in module:
                    x = self.through(inner, x)
                return x
            case nn.Conv2d():
                (stride, _), (pad, _) = module.stride, module.padding
                assert isinstance(pad, int)
                return self._add(
                    "Conv",
                    [x, *self._constants(module.weight, module.bias)],
                    strides=[stride] * 2,
                    pads=[pad] * 4,
                )
            case nn.BatchNorm2d():
                values = (module.weight, module.bias, module.running_mean, module.running_var)
                named = [x, *self._constants(*values)]
                return self._add("BatchNormalization", named, epsilon=module.eps)
            case nn.Linear():
                named = [x, *self._constants(module.weight, module.bias)]
                return self._add("Gemm", named, transB=1)
            case nn.ReLU():
                return self._add("Relu", [x])
            case nn.Flatten():
                return self._add("Flatten", [x])
            case nn.AdaptiveAvgPool2d():
                return self._add("GlobalAveragePool", [x])
        assert isinstance(module.inside, nn.Module)
        return self._add("Relu", [self._add("Add", [x, self.through(module.inside, x)])])


def model_of(
    network: torch.nn.Module, image: Sequence[int], said: dict[str, str]
) -> onnx.ModelProto:
    """The network as an ONNX model with a symbolic batch dimension and the domain [0, 1]."""
    exporter = _Exporter()
    last = exporter.through(network, INPUT_NAME)
    exporter.nodes[-1].output[0] = OUTPUT_NAME
    assert last
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])
        for name, sizes in ((INPUT_NAME, image), (OUTPUT_NAME, [10]))
    ]
    graph = helper.make_graph(
        exporter.nodes, "convolutional_network", ends[:1], ends[1:], exporter.tensors
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnx_exact.benchmarks",
    )
    helper.set_model_props(model, {DOMAIN_KEY: DOMAIN_UNIT_BOX, **said})
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_images", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        recipe = RECIPES[args.name]
        network, before, after = train(args.name, data.load(recipe.data))
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks.train_images: {error}", file=sys.stderr)
        return 2
    said = {
        "training.dataset": recipe.data,
        "training.epochs": str(recipe.epochs),
        "training.l1": f"{recipe.l1:g}",
        "training.test_accuracy": f"{after:.4f}",
        "training.command": f"python -m benchmarks.train_images {args.name} --out {args.out.name}",
    }
    write_model(model_of(network, recipe.image, said), args.out)
    print(f"{args.out.name}: test accuracy {before:.4f}, {after:.4f} after pruning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
