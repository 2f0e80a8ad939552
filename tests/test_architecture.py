"""The arrows of the architecture, and no others: which package may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("search", "doors", "rewardmodel", "policies", "atari_bridge")
ALLOWED = {
    "search": set(),
    "doors": {"search.evaluation"},
    "rewardmodel": {"search.evaluation", "doors"},
    "policies": {"search", "search.evaluation", "rewardmodel", "doors"},
    "atari_bridge": {"search", "search.evaluation", "doors"},
}
GROUND = {
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
}


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def room(module: str) -> str:
    """`search.evaluation` is a room of its own; every other package is one."""
    parts = module.split(".")
    return "search.evaluation" if parts[:2] == ["search", "evaluation"] else parts[0]


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_along_the_arrows(package: str) -> None:
    own = {package} | ({"search.evaluation"} if package == "search" else set())
    for path in sources(package):
        for module in imported_names(path):
            target = room(module)
            if target.split(".")[0] in PACKAGES and target not in own:
                assert target in ALLOWED[package], f"{path.name} imports {module}"


def test_search_evaluation_does_not_know_the_planners() -> None:
    for path in sources("search/evaluation"):
        planners = {m for m in imported_names(path) if m.split(".")[0] == "search"}
        assert all(room(m) == "search.evaluation" for m in planners), path.name


def test_ground_floor_of_search_needs_no_language_and_no_games() -> None:
    import sys

    for path in sources("search"):
        for module in imported_names(path):
            top = module.split(".")[0]
            known = top in sys.stdlib_module_names or top in GROUND or top == "search"
            assert known, f"{path.name} imports {module}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_tests_benchmarks_or_the_command(package: str) -> None:
    for path in sources(package):
        tops = {module.split(".")[0] for module in imported_names(path)}
        assert not tops & {"tests", "benchmarks", "configs", "prefsearch"}, path.name


def test_the_command_imports_doors_lazily() -> None:
    tree = ast.parse((ROOT / "prefsearch.py").read_text(encoding="utf-8"))
    top_level = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    names = {a.name for n in top_level if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in top_level if isinstance(n, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & set(PACKAGES)


def test_every_file_says_what_it_is() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
