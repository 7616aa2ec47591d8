"""What machine code knows of NumPy's arrays; runtime/numpy_fields.py says where it is."""

from __future__ import annotations

from typing import NamedTuple


class ArrayFields(NamedTuple):
    """Where in an array, in bytes, is what NumPy's headers call so (`PyArrayObject_fields`)."""

    data: int
    nd: int
    dimensions: int
    strides: int
    descr: int
    flags: int
