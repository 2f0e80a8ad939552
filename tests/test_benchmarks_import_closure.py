"""Closures of imports, and the sources of results that are made of them."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.harness.import_closure import FIRST_PARTY, import_closure
from benchmarks.harness.provenance import (
    LEFT_OUT,
    ROOT,
    SOURCES,
    source_files,
)
from prefsearch.cli.commands import COMMANDS


def imported_anywhere(path: Path) -> set[str]:
    """Modules that a file imports, read apart from `import_closure`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files_behind(modules: set[str]) -> set[Path]:
    """The plain files of modules of this repository; packages are left to who re-exports."""
    files = {ROOT.joinpath(*module.split(".")).with_suffix(".py") for module in modules}
    return {file for file in files if file.is_file()}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_are_closed_under_imports_and_hold_the_benchmark(name: str) -> None:
    found = set(source_files(name))
    left_out = {path for pattern in LEFT_OUT for path in ROOT.glob(pattern)}
    assert ROOT.joinpath(*SOURCES[name].roots[0].split(".")).with_suffix(".py") in found
    for path in found:
        if path.suffix == ".py":
            missing = files_behind(imported_anywhere(path)) - found - left_out
            assert not missing, f"{path.relative_to(ROOT)} imports {missing}"
    assert not found & left_out


@pytest.mark.parametrize("name", SOURCES)
def test_names_of_modules_in_benchmarks_are_among_the_sources(name: str) -> None:
    """Workers that are started by name are imported by no statement: they have to be roots."""
    found = source_files(name)
    named = {
        node.value
        for path in found
        if "benchmarks" in path.parts and path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(rf"(?:{'|'.join(FIRST_PARTY)})\.\w+(?:\.\w+)*", node.value)
    }
    assert files_behind(named) - set(found) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: p.stem)
def test_what_benchmarks_run_by_prefsearch_is_among_their_sources(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    started = re.search(r'"-m", "prefsearch", "(\w+)"|entry\.main\(\["(\w+)", "(\w+)"', text)
    if started is None:
        return
    demo, package, command = started.groups()
    folder = {"policy": "policies", "atari": "atari_bridge", "reward": "rewardmodel"}
    file = "policies/demo.py" if demo else f"{folder[package]}/cli/{command}.py"
    name = next(n for n, s in SOURCES.items() if s.roots[0].endswith(f".{path.stem}"))
    assert {
        ROOT / "prefsearch/cli/entry.py",
        ROOT / "prefsearch/cli/command_line.py",
        ROOT / file,
    } <= set(source_files(name))


@pytest.mark.parametrize("name", ["real_data", "hh_minilm"])
def test_what_the_steps_before_a_benchmark_run_is_among_its_sources(name: str) -> None:
    scripts = {
        "real_data": (ROOT / "docs" / "real_data.sh").read_text(encoding="utf-8"),
        "hh_minilm": (ROOT / "benchmarks" / "reward" / "baselines.py").read_text(encoding="utf-8"),
    }
    found = source_files(name)
    for package, command in set(re.findall(r"prefsearch (reward|policy) (\w+)", scripts[name])):
        module = COMMANDS[package].subcommands[command].run.partition(":")[0]
        assert (ROOT / module.replace(".", "/")).with_suffix(".py") in found, command


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hh_minilm", "prefsearch/statistics/intervals.py"),
        ("demo", "prefsearch/statistics/seed_intervals.py"),
        ("cartpole", "prefsearch/cli/command_line.py"),
        ("cartpole", "atari_bridge/cli/train.py"),
        ("atari_cpu", "prefsearch/statistics/seed_intervals.py"),
        ("atari_speed", "benchmarks/atari/ours.py"),
        ("planning_core", "search/backends/numba_kernels.py"),
        ("planning_core", "benchmarks/core/mctx_side.py"),
        ("planning_core", "prefsearch/storage/files.py"),
        ("text_search_one_thread", "benchmarks/text/reasoners.py"),
        ("real_data", "rewardmodel/evaluation/baselines.py"),
    ],
)
def test_a_file_that_makes_figures_is_among_their_sources(name: str, file: str) -> None:
    assert ROOT / file in source_files(name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("planning_core", "policies/demo.py"),
        ("planning_core", "search/viewer/page.py"),
        ("reward_training", "search/backends/numba_kernels.py"),
        ("demo", "rewardmodel/cli/train.py"),
        ("cartpole", "policies/cli/train.py"),
        ("text_gains", "policies/cli/train.py"),
    ],
)
def test_a_file_that_a_benchmark_does_not_run_is_not(name: str, file: str) -> None:
    assert (ROOT / file).is_file()
    assert ROOT / file not in source_files(name)


def test_a_closure_follows_lazy_imports_and_looks_through_packages(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    write(
        "benchmarks/one.py",
        "from search import Planner\nimport torch\ndef f():\n    import prefsearch.x",
    )
    write(
        "search/__init__.py",
        "from search.planners.base import P as Planner\nfrom search.other import O",
    )
    write("search/planners/base.py", "from search import tree\nfrom benchmarks import documents")
    write("search/tree.py", "import broken (")
    write("search/other.py", "")
    write("benchmarks/documents.py", "from policies import nothing")
    write("prefsearch/__init__.py", "import os\nos.environ['A'] = '1'")
    write("prefsearch/x.py", "import rewardmodel as rm")
    write("rewardmodel/__init__.py", "from rewardmodel.all import a")
    write("rewardmodel/all.py", "a = 1")

    def closure(*roots: str) -> set[str]:
        found = import_closure(roots, tmp_path, left_out=["benchmarks/documents.py"])
        return {path.relative_to(tmp_path).as_posix() for path in found}

    expected = {
        "benchmarks/one.py", "prefsearch/__init__.py", "prefsearch/x.py",
        "rewardmodel/__init__.py", "rewardmodel/all.py", "search/planners/base.py",
        "search/tree.py",
    }  # fmt: skip
    assert closure("benchmarks.one") == expected
    write("search/planners/base.py", "from search.lost import x")
    with pytest.raises(
        ValueError, match=r"search/planners/base\.py imports 'search\.lost'.*no file"
    ):
        closure("benchmarks.one")
    write("search/planners/base.py", "from .tree import x")
    with pytest.raises(ValueError, match=r"search/planners/base\.py:1: found a relative import"):
        closure("benchmarks.one")
