"""What is to be trusted stays small: `python -m tests.verifier.test_size` counts its statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

VERIFIER = Path(__file__).parents[2] / "onnx_exact" / "verifier"
# What it takes to check chains, and channels that went.
MOST = 1_654
MOST_FOR_CHANNELS = 375
CHANNELS = ("channels.py", "cutting.py", "movement.py", "quantized.py")


def statements(path: Path) -> int:
    """All that a file does: imports, docstrings and declarations of fields are left out."""
    return sum(1 for node in ast.walk(ast.parse(path.read_text())) if does_something(node))


def does_something(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return False
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.AnnAssign(value=None):
            return False
    return isinstance(node, ast.stmt)


def counted() -> Iterator[tuple[str, int]]:
    for path in sorted(VERIFIER.glob("*.py")):
        yield path.name, statements(path)


def test_the_trusted_part_does_not_grow() -> None:
    channels = sum(count for name, count in counted() if name in CHANNELS)
    assert sum(count for _, count in counted()) - channels <= MOST
    assert channels <= MOST_FOR_CHANNELS


if __name__ == "__main__":
    for name, count in (*counted(), ("total", sum(count for _, count in counted()))):
        print(f"{name:20} {count:5}")
