"""Inputs of imaginary graphs for the tests of domains."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32, INT64, FLOAT16, FLOAT64 = 1, 7, 10, 11


@dataclass(frozen=True)
class Input:
    name: str = "x"
    shape: tuple[int | None, ...] | None = (None, 2)
    elem_type: int = FLOAT64

    @property
    def is_float(self) -> bool:
        return self.elem_type in (FLOAT32, FLOAT16, FLOAT64)


TWO = (Input("x", (1, 2)),)
