"""The arrows of the architecture, and no others: which package may import which."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("prefsearch", "search", "rewardmodel", "policies", "atari_bridge")
# Which package may import which; all may import the base, `prefsearch`.
ALLOWED = {
    "prefsearch": set(),
    "search": {"prefsearch"},
    "rewardmodel": {"prefsearch"},
    "policies": {"prefsearch", "search", "rewardmodel"},
    "atari_bridge": {"prefsearch", "search"},
}
# Modules that the planning core may import beside the standard library.
CORE_LIBRARIES = {
    "torch",
    "numpy",
    "numba",
    "llvmlite",
    "triton",
    "scipy",
    "matplotlib",
    "yaml",
    "filelock",
    "psutil",
    "safetensors",
    "lazy_loader",
    "search",
    "prefsearch",
}
OUTSIDE = {"tests", "benchmarks", "configs", "examples"}


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_along_the_arrows(package: str) -> None:
    for path in sources(package):
        tops = {module.split(".")[0] for module in imported_names(path)}
        assert tops & ({*PACKAGES} | OUTSIDE) <= ALLOWED[package] | {package}, path.name


def test_search_needs_no_language_and_no_games() -> None:
    for path in sources("search"):
        tops = {module.split(".")[0] for module in imported_names(path)}
        assert tops <= CORE_LIBRARIES | sys.stdlib_module_names, path.name


def test_every_file_says_what_it_is() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def import_graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules that each module imports, deferred and TYPE_CHECKING imports included."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for package in packages
        for path in (root / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        graph[module] = found & paths.keys() - {module}
    return graph


def in_cycles(graph: dict[str, set[str]]) -> set[str]:
    """Modules in import cycles: those left when leaves and roots are removed again and again."""
    left = set(graph)
    while True:
        used = {other for module in left for other in graph[module] & left}
        kept = {module for module in left & used if graph[module] & left}
        if kept == left:
            return left
        left = kept


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycles(package: str) -> None:
    assert not in_cycles(import_graph(ROOT, (package,)))


def test_an_import_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.py").write_text("def f():\n    from p.b import g\n")
    (tmp_path / "p" / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import a\n"
    )
    (tmp_path / "p" / "c.py").write_text("import p.a\n")
    assert in_cycles(import_graph(tmp_path, ("p",))) == {"p.a", "p.b"}
