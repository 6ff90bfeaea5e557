"""The rooms of the package and who may know whom, read from the imports of the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import onnx_exact
from tests.small_network import network

PACKAGE = Path(onnx_exact.__file__).parent
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
MOST_LINES = 400

# Modules that know nothing but each other and numpy.
GROUND = {
    "budgets",
    "_version",
    "elements",
    "errors",
    "methods",
    "runtime",
}
# What a room may import apart from itself and the ground; a module that is not named here may
# import what it likes, but for the pipeline.
MAY_IMPORT = {
    "network": set(),
    "bounds": {"network"},
    "attack": {"network"},
    "bab": {"network", "bounds", "milp"},
    "milp": {"network", "bounds"},
    "decide": {"network", "bounds", "attack", "bab", "milp"},
    "reduce": {"network", "bounds", "decide"},
    "certify": {"network", "bounds", "bab", "decide", "reduce"},
    "graph": {"network"},
    "labels": {"network", "graph"},
    "domains": {"network"},
    # Checks what all others did, so that it shares nothing with them but the reading of --domain.
    "verifier": {"domains"},
    "falsify": {"domains", "verifier"},
    "verified": {"domains", "verifier", "falsify"},
    "command": {"verified", "verifier"},
    "inputs": {"domains", "graph", "network"},
    "settings": {"domains", "inputs"},
    # Neither the report nor the command: what a step found is told by values.
    "stages": {
        *("network", "domains", "graph", "labels", "decide", "reduce", "certify", "validate"),
        *("bab", "verifier", "inputs", "settings"),
    },
    "report": {"network", "decide", "graph", "reduce", "certify", "domains", "stages", "validate"},
    **{module: set() for module in GROUND},
}
MAY_IMPORT_PIPELINE = {"__init__", "__main__", "api", "cli", "integrations", "pipeline"}
MAY_IMPORT_ONNX = {
    "graph",
    "labels",
    "pipeline",
    "stages",
    "validate",
    "integrations",
}
MAY_IMPORT_ONNX |= {"api", "inputs", "inspected", "report", "verified", "verifier"}
# Slow to load, or not needed by most runs: imported inside the functions that use them.
HEAVY = {
    "cvxpy",
    "onnx_graphsurgeon",
    "onnxruntime",
    "pyscipopt",
    "rich",
    "scipy",
    "joblib",
    "numba",
    "highspy",
}
# A class of SCIP's has to be named at the top; the module itself is imported only when needed.
MAY_IMPORT_HEAVY_AT_THE_TOP = {"milp/collect.py", "milp/shrink.py"}
# Top-level names of packages whose project is called otherwise.
# The messages of onnx are protobuf's: one cannot come without the other.
PROJECTS = {
    "google": "onnx",
    "onnx_graphsurgeon": "onnx-graphsurgeon",
    "onnx_ir": "onnx-ir",
    "olive": "olive-ai",
}


@dataclass(frozen=True)
class Import:
    """One imported module: by which file, and whether as soon as that file is."""

    file: str
    module: str
    at_once: bool

    @property
    def importer(self) -> str:
        """The room or top-level module that imports."""
        return self.file.split("/")[0].removesuffix(".py")

    @property
    def top(self) -> str:
        """The package that is imported."""
        return self.module.split(".")[0]

    @property
    def room(self) -> str | None:
        """The room or top-level module of this package that is imported, if it is one."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "onnx_exact" and len(parts) > 1 else None


def imports_of(path: Path) -> Iterator[Import]:
    file = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text())
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        for module in modules(node):
            yield Import(file, module, id(node) not in later)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide what is imported"
        if node.module == "onnx_exact":
            return [f"onnx_exact.{alias.name}" for alias in node.names]
        return [node.module or ""]
    return []


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for path in FILES for found in imports_of(path)]


def test_source_is_read() -> None:
    """The tests below say nothing where no import is found."""
    assert {"network", "bounds", "decide", "reduce", "certify", "graph", "domains"} <= {
        i.importer for i in IMPORTS
    }
    assert any(not found.at_once for found in IMPORTS)


def test_no_room_imports_what_it_must_not_know() -> None:
    forbidden = [
        (found.file, found.module)
        for found in IMPORTS
        if found.importer in MAY_IMPORT
        and found.room is not None
        and found.room not in MAY_IMPORT[found.importer] | GROUND | {found.importer}
    ]
    assert forbidden == []


def test_networks_know_numpy_and_themselves_alone() -> None:
    allowed = {"numpy", "onnx_exact", *sys.stdlib_module_names}
    inside = [found for found in IMPORTS if found.importer == "network"]
    assert {found.top for found in inside} <= allowed
    assert {found.room for found in inside} <= {None, "network"}


def test_only_the_outermost_layer_knows_the_pipeline() -> None:
    importers = {found.importer for found in IMPORTS if found.room == "pipeline"}
    assert importers <= MAY_IMPORT_PIPELINE


def test_only_the_graph_room_builds_onnx() -> None:
    importers = {found.importer for found in IMPORTS if found.top == "onnx"}
    assert importers <= MAY_IMPORT_ONNX
    graphsurgeon = {found.importer for found in IMPORTS if found.top == "onnx_graphsurgeon"}
    assert graphsurgeon <= {"graph"}


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    early = {found.file for found in IMPORTS if found.top in HEAVY and found.at_once}
    assert early <= MAY_IMPORT_HEAVY_AT_THE_TOP


@pytest.mark.parametrize("module", ["cli", "pipeline", "decide.run", "reduce", "graph.locate"])
def test_loading_a_module_loads_no_heavy_library(module: str) -> None:
    script = f"import onnx_exact.{module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())


def test_the_command_line_loads_neither_numpy_nor_onnx_before_it_has_work() -> None:
    script = "import onnx_exact.cli, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert {"numpy", "onnx"}.isdisjoint(done.stdout.split())


def loaded_by(script: str) -> set[str]:
    """The modules that are there once a process has run a script."""
    script = f"{script}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_and_the_package_itself_load_neither_numpy_nor_onnx() -> None:
    show_help = """
from onnx_exact.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
"""
    for script in ("import onnx_exact", show_help):
        assert HEAVY.isdisjoint(loaded_by(script))
        assert {"numpy", "onnx"}.isdisjoint(loaded_by(script))


def test_an_easy_run_loads_what_it_needs_alone(tmp_path: Path) -> None:
    source, target = network(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    arguments = ["optimize", str(source), str(target), "--domain", "0:1", "--quiet"]
    loaded = loaded_by(f"from onnx_exact.cli import main; assert main({arguments}) == 0")
    needed = {"numpy", "onnx", "onnxruntime", "onnx_graphsurgeon"}
    assert needed <= loaded
    assert (HEAVY - needed).isdisjoint(loaded)
    # The checker is for certificates.
    assert {"flint", "onnx.reference", "onnx_exact.verifier"}.isdisjoint(loaded)


def test_bounds_alone_load_no_solver() -> None:
    model = PYPROJECT.parent / "models" / "digits_2x32_l1.onnx"
    script = "import onnx_exact, sys; onnx_exact.optimize(sys.argv[1], method='bounds')"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print(*sys.modules)", model],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"cvxpy", "highspy", "pyscipopt"}.isdisjoint(done.stdout.split())


def test_every_imported_package_is_declared() -> None:
    """What comes along with another package may stop doing so."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    needed = names_of(project["dependencies"])
    extras = {
        name
        for extra, lines in project["optional-dependencies"].items()
        if extra not in ("test", "benchmarks")
        for name in names_of(lines)
    }
    ours = {"onnx_exact", *sys.stdlib_module_names}
    imported = {
        # Who loads an integration has what it integrates with.
        (found.top, found.at_once and found.importer != "integrations")
        for found in IMPORTS
        if found.top not in ours
    }
    for name, at_once in imported:
        assert PROJECTS.get(name, name) in (needed if at_once else needed | extras)


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line)[0].lower() for line in requirements}


def test_there_are_no_star_imports() -> None:
    stars = [
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert stars == []


def test_every_file_says_what_it_is_for_and_stays_short() -> None:
    for path in FILES:
        source = path.read_text()
        assert len(source.splitlines()) <= MOST_LINES, path
        tree = ast.parse(source)
        assert not tree.body or ast.get_docstring(tree), path
