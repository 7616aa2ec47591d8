"""The layout, held by the imports: the layers, the leaves, no cycles, nothing heavy."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exprjit"

# A module imports only from its own layer or from one further right. The public names in
# exprjit/__init__.py stand between the tools, which may use them, and what they gather.
LAYERS = ["tools", "__init__", "function", "runtime", "x86", "ir", "language", "errors"]

# The modules that stand beside function.py and belong to its layer.
BESIDE_FUNCTION = {
    "array_code", "array_plain", "array_request", "array_run", "array_tables", "arrays", "body",
    "cache", "compiler", "dask_columns", "diagnosis", "formula", "inspection", "ufuncs", "version",
}  # fmt: skip

# These know nothing of the project but each other, so that they can be read and tested alone.
LEAVES = {f"exprjit.runtime.{name}" for name in ("cpu", "memory", "pages", "turn")}

# Too slow or too optional for the import path: imported in the functions that need them.
HEAVY = {
    "dataclasses", "inspect", "numpy", "pandas", "polars", "pyarrow", "prompt_toolkit",
    "hypothesis", "capstone",
}  # fmt: skip

# Of these, the ones that must not come in through lark or the standard library either.
OPTIONAL = {
    "numpy", "pandas", "polars", "pyarrow", "prompt_toolkit", "hypothesis", "capstone",
}  # fmt: skip

LONGEST_FILE = 500


class Import(NamedTuple):
    target: str  # the full name of what is imported, as in "exprjit.ir.graph" or "os.path"
    line: int
    at_start: bool  # runs when the module is imported
    for_types: bool  # under `if TYPE_CHECKING:`, so it never runs


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(source: str, module: str, is_package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import in the text of `module`, wherever it stands."""

    def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            # One dot is the folder of the module, which for a package is itself.
            folder = module.split(".")[: None if is_package else -1]
            folder = folder[: len(folder) - (node.level - 1)]
            base = ".".join([*folder, base] if base else folder)
        for alias in node.names:
            # `from exprjit.ir import graph` imports a module, `from exprjit.ir.graph import Node`
            # a name out of one.
            inner = f"{base}.{alias.name}"
            yield inner if inner in modules else base

    def walk(node: ast.AST, at_start: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in targets(node):
                yield Import(target, node.lineno, at_start, for_types)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_start = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.body:
                yield from walk(inner, False, True)
            for inner in node.orelse:
                yield from walk(inner, at_start, for_types)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_start, for_types)

    return walk(ast.parse(source), at_start=True, for_types=False)


@functools.cache
def imports(module: str) -> list[Import]:
    path = MODULES[module]
    return list(imports_of(path.read_text(), module, path.name == "__init__.py", set(MODULES)))


def in_project(target: str) -> bool:
    return target == "exprjit" or target.startswith("exprjit.")


def layer(module: str) -> str:
    """The folder or the top-level file that the module is in.

    `python -m exprjit` and `exprjit.check` are doors to the tools.
    """
    name = module.split(".")[1] if "." in module else "__init__"
    if name in BESIDE_FUNCTION:
        return "function"
    return "tools" if name in ("__main__", "check") else name


def test_the_reader_of_imports_sees_them_all() -> None:
    source = """
import os.path
from typing import TYPE_CHECKING
from . import graph, rules
from ..errors import ExprError
if TYPE_CHECKING:
    import numpy
class C:
    import inspect
def f():
    from exprjit import x86
    return lambda: __import__
try:
    from exprjit.x86.block import Block
except ImportError:
    pass
"""
    modules = {"exprjit", "exprjit.ir.graph", "exprjit.ir.rules", "exprjit.errors", "exprjit.x86"}
    assert list(imports_of(source, "exprjit.ir.build", False, modules)) == [
        Import("os.path", 2, True, False),
        Import("typing", 3, True, False),
        Import("exprjit.ir.graph", 4, True, False),
        Import("exprjit.ir.rules", 4, True, False),
        Import("exprjit.errors", 5, True, False),
        Import("numpy", 7, False, True),
        Import("inspect", 9, True, False),
        Import("exprjit.x86", 11, False, False),
        Import("exprjit.x86.block", 14, True, False),
    ]
    (only,) = imports_of("from .graph import make", "exprjit.ir", True, modules)
    assert only.target == "exprjit.ir.graph"


def test_there_is_something_to_hold() -> None:
    assert {"exprjit", "exprjit.function", "exprjit.errors"} <= set(MODULES)
    assert {layer(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_layer_or_further_right(module: str) -> None:
    allowed = LAYERS[LAYERS.index(layer(module)) :]
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{found.line} imports {found.target}"
        for found in imports(module)
        if in_project(found.target) and layer(found.target) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(LEAVES & set(MODULES)))
def test_a_leaf_imports_nothing_else_of_the_project(module: str) -> None:
    assert {found.target for found in imports(module) if in_project(found.target)} <= LEAVES


def test_the_leaves_are_there() -> None:
    assert {"exprjit.runtime.memory", "exprjit.runtime.cpu"} <= set(MODULES)


def test_no_import_cycles() -> None:
    """Across folders the layers forbid them; inside a folder nothing else does."""
    graph = {
        module: {
            found.target
            for found in imports(module)
            if found.target in MODULES and not found.for_types and found.target != module
        }
        for module in MODULES
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_on_the_import_path(module: str) -> None:
    at_start = {found.target.split(".")[0] for found in imports(module) if found.at_start}
    assert at_start & HEAVY == set()


def test_the_package_itself_imports_only_the_project() -> None:
    outside = {
        found.target
        for found in imports("exprjit")
        if found.at_start and not in_project(found.target)
    }
    assert outside <= {"__future__"}


def test_importing_the_package_brings_in_nothing_optional() -> None:
    code = f"import sys, exprjit; print(*sorted(sys.modules.keys() & {OPTIONAL!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_short_enough_to_read(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) < LONGEST_FILE
