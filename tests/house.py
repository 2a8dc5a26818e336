"""The house in numbers: ``python tests/house.py`` prints them; tests/test_architecture.py keeps them."""

import ast
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "senet"


class Source(NamedTuple):
    """A module: its path, its syntax tree, and its lines of code, without blanks, comments and docstrings."""

    path: Path
    tree: ast.Module
    code: int


def read(path: Path) -> Source:
    stub = path.with_suffix(".pyi")  # what a package offers, imported with its first use
    text = path.read_text() + (stub.read_text() if stub.exists() else "")
    tree = ast.parse(text)
    strings = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            strings |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return Source(path, tree, sum(bool(line.split("#")[0].strip()) and i not in strings for i, line in lines))


def modules() -> dict[str, Source]:
    """Return every module of the package by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = read(path)
    return found


def imported(source: Source, known: dict[str, Source]) -> set[str]:
    """Return the modules of ours that a module imports anywhere, at its top, late, or for types alone."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = ".".join(source.path.relative_to(PACKAGE.parent).parent.parts)
            home = (
                f"{package}.{node.module}" if node.level else node.module
            )  # stubs import from their own package
            names = {f"{home}.{alias.name}" for alias in node.names}
            found |= {name if name in known else home for name in names}
    return found & known.keys()


def circles(known: dict[str, Source]) -> list[set[str]]:
    """Return the sets of modules that import one another, directly or through others."""
    graph = {name: imported(source, known) - {name} for name, source in known.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for name in graph[left.pop()] - seen:
                seen.add(name)
                left.append(name)
        return seen

    far = {name: reached(name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in far[name] if name in far[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def repeated_classes(known: dict[str, Source]) -> list[str]:
    """Return the names that two public classes of the package share."""
    names = Counter(
        node.name
        for source in known.values()
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return [name for name, count in names.items() if count > 1]


def functions(known: dict[str, Source]) -> dict[str, int]:
    """Return the length in lines of every function, without its docstring."""
    return {
        f"{name}:{node.lineno} {node.name}": node.end_lineno
        - node.lineno
        + 1
        - len((ast.get_docstring(node, clean=False) or "").splitlines())
        for name, source in known.items()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def core(known: dict[str, Source]) -> int:
    """Return the lines of code of everything but the integrations."""
    return sum(s.code for name, s in known.items() if not name.startswith("senet.integrations"))


def main() -> None:
    known = modules()
    total, lengths = sum(source.code for source in known.values()), list(functions(known).values())
    data = sum(name.startswith("senet.data") for name in known)
    print(
        f"lines of code: {core(known):,} in the core, {total - core(known):,} in integrations; {len(known)} files"
    )
    print(
        f"files of data: {data}; import circles: {len(circles(known))}; names of two classes: {repeated_classes(known)}"
    )
    print(f"functions: median {median(lengths):.0f} lines, {sum(length > 50 for length in lengths)} over 50")


if __name__ == "__main__":
    main()
