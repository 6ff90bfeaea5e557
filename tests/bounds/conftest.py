"""Every test of bounds runs on every structure of a linear map."""

from __future__ import annotations

import pytest

from onnx_exact.network import affine
from tests.structures import STRUCTURES, Structure

# What these ask for besides bounds needs matrices.
DENSE_ALONE = {"test_off"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "structure" in metafunc.fixturenames:
        alone = metafunc.module.__name__.split(".")[-1] in DENSE_ALONE
        names = ["dense"] if alone else list(STRUCTURES)
        metafunc.parametrize("structure", [STRUCTURES[n] for n in names], ids=names, indirect=True)


@pytest.fixture(autouse=True)
def structure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a matrix is taken for."""
    made: Structure = request.param
    monkeypatch.setattr(affine, "as_operator", made)
