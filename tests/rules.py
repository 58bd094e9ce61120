"""The house's rules (docs/architecture.md) as functions: path and source in, faults out.

A fault is one line, ``cotray/data/splits.py:12: what is wrong``. ``path`` is relative to the checkout.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

# Every import points down: a room may import those before it, and itself.
WAY = ("errors", "config", "learning", "fitting", "data", "imaging", "segmentation", "synthesis", "features",
       "selection", "classification", "evaluation")  # fmt: skip
SERVICES = ("ray", "mlflow", "fastapi")
HEAVY = ("ray", "torch", "mlflow", "cv2", "sklearn", "scipy", "matplotlib", "pandas", "fastapi")
PICKLERS = ("pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal")
FILE_LINES = 400
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def room(path: str) -> str:
    """The room of a file: ``cotray/data/splits.py`` -> ``data``, ``cotray/cli.py`` -> ``cli``."""
    parts = PurePath(path).with_suffix("").parts
    return parts[1] if parts[0] == "cotray" and len(parts) > 1 else ""


def imports_of(path: str, nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported, by statement or by ``import_module("...")``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = _package(path, node)
            yield from ((node.lineno, f"{package}.{alias.name}".removesuffix(".*")) for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "__import__"}:
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((node.lineno, name) for name in names)


def packages(path: str, source: str) -> set[str]:
    """The top packages a file imports, its own included."""
    return {name.split(".")[0] for _, name in imports_of(path, ast.walk(ast.parse(source)))}


def foreign_imports(path: str, source: str, foreign: tuple[str, ...]) -> list[str]:
    """Imports of packages that have no place here, wherever they stand, ``if TYPE_CHECKING`` included."""
    found = imports_of(path, ast.walk(ast.parse(source)))
    return [f"{path}:{line}: imports {name}" for line, name in found if name.split(".")[0] in foreign]


def against_the_way(path: str, source: str) -> list[str]:
    """Imports of a pure room from a room that comes later, or from one that is not pure."""
    here = room(path)
    known = WAY[: WAY.index(here) + 1]
    found = imports_of(path, ast.walk(ast.parse(source)))
    inside = [(line, name.split(".")) for line, name in found if name.startswith("cotray.")]
    return [
        f"{path}:{line}: {here} imports cotray.{parts[1]}; it may import {', '.join(known)}"
        for line, parts in inside
        if parts[1] not in known and parts[1] != "__version__"
    ]


def heavy_at_import(path: str, source: str) -> list[str]:
    """Heavy packages imported when the module is; functions and ``if TYPE_CHECKING`` may import them."""
    found = imports_of(path, _run_at_import(ast.parse(source)))
    return [f"{path}:{line}: imports {name} on top" for line, name in found if name.split(".")[0] in HEAVY]


def logic(path: str, source: str) -> list[str]:
    """Anything in a door but its docstring, imports, constants and one call under ``if __name__``."""
    kinds = Function | ast.Lambda | ast.ClassDef | ast.For | ast.While | ast.Try | ast.With | ast.IfExp
    nodes = ast.walk(ast.parse(source))
    return [f"{path}:{node.lineno}: a door holds no logic" for node in nodes if isinstance(node, kinds)]


def too_long(path: str, source: str) -> list[str]:
    """A file of more lines than can be overlooked, and functions of more than fit a screen."""
    lines = len(source.splitlines())
    faults = [f"{path}:1: {lines} lines, at most {FILE_LINES}"] if lines > FILE_LINES else []
    for line, name, length in functions(source):
        if length > FUNCTION_LINES:
            faults.append(f"{path}:{line}: {name} has {length} lines, at most {FUNCTION_LINES}")
    return faults


def functions(source: str) -> list[tuple[int, str, int]]:
    """Line, name and number of lines in the body, its docstring apart, of every function."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            found.append((node.lineno, node.name, length))
    return found


def pickles(path: str, source: str) -> list[str]:
    """Whatever reads or writes pickles: loading one runs code that came with the data."""
    tree = ast.parse(source)
    faults = foreign_imports(path, source, PICKLERS)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called == "torch.load" and keywords.get("weights_only") != "True":
            faults.append(f"{path}:{node.lineno}: torch.load without weights_only=True")
        if called in {"np.load", "numpy.load"} and keywords.get("allow_pickle", "False") != "False":
            faults.append(f"{path}:{node.lineno}: np.load with allow_pickle")
        if called.endswith("read_pickle"):
            faults.append(f"{path}:{node.lineno}: {called}")
    return faults


def undocumented(path: str, source: str) -> list[str]:
    """A module without a docstring."""
    return [] if ast.get_docstring(ast.parse(source)) else [f"{path}:1: no docstring"]


def _package(path: str, node: ast.ImportFrom) -> str:
    """The package of ``from X import``; dots are resolved from the file's place."""
    if not node.level:
        return node.module or ""
    here = PurePath(path).parts[: -node.level]
    return ".".join([*here, node.module] if node.module else here)


def _name(function: ast.expr) -> str:
    return ast.unparse(function).split(".")[-1]


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below ``node`` that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and _name(child.test) == "TYPE_CHECKING"
        if not guarded and not isinstance(child, Function | ast.Lambda):
            yield child
            yield from _run_at_import(child)
