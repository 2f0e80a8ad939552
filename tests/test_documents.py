"""The documents' figures are those of the results files, marked where the code has changed."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import (
    documents,
    documents_atari,
    documents_reward,
    documents_text,
    provenance,
)
from benchmarks.harness.documents import (
    BLOCKS,
    OLDER,
    differing,
    missing_results,
    read_results,
    rendered,
)
from benchmarks.harness.import_closure import FIRST_PARTY, import_closure
from benchmarks.harness.provenance import (
    CHANGED,
    LEFT_OUT,
    NOT_RECORDED,
    ROOT,
    SOURCES,
    held_sources,
    require_sources,
    source_digest,
    source_files,
)
from benchmarks.harness.unsourced_numbers import unsourced_in, unsourced_numbers
from prefsearch.cli.commands import COMMANDS

RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))
REMEDY = "run: python benchmarks/harness/documents.py"


def test_every_figure_of_the_documents_is_that_of_the_results() -> None:
    assert differing(write=False) == [], REMEDY


def test_the_results_of_every_block_exist() -> None:
    assert missing_results(ROOT) == []


def test_every_picture_of_results_exists() -> None:
    shown = [
        page.parent / picture
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for picture in re.findall(r"\]\(([^)]*results/[^)]*\.png)\)", page.read_text("utf-8"))
    ]
    assert len(shown) >= 5
    assert [path for path in shown if not path.is_file()] == []


def test_no_measured_number_stands_outside_a_block_of_figures() -> None:
    assert unsourced_in(ROOT) == []


def test_headers_of_configurations_leave_results_to_the_documents() -> None:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        header = " ".join(re.findall(r"^# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert not re.search(r"\[[\d.,]+, [\d.,]+\]", header), path.name


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_record_where_they_come_from_and_are_shown(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    assert set(provenance.FIELDS) <= set(found)
    assert any(path.stem in block.results for block in BLOCKS)
    if found["source_digest"] == source_digest(path.stem):
        sources = SOURCES[path.stem]
        assert found["sources"] == [*sources.roots, *sources.data]


# What results depend on


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


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the documents, their results and all sources, with current digests."""
    root = tmp_path_factory.mktemp("current")
    folders = ("docs", "configs", "benchmarks", *FIRST_PARTY)
    for folder in dict.fromkeys(folders):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for path in sorted((root / "docs" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        found["provenance"]["source_digest"] = source_digest(path.stem, root)
        path.write_text(json.dumps(found), encoding="utf-8")
    differing(root, write=True)
    return root


@pytest.fixture
def checkout(current: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(current, tmp_path, dirs_exist_ok=True))


def change_results(root: Path, name: str, **changes: Any) -> None:
    path = root / "docs" / "results" / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**found, **changes}), encoding="utf-8")


def test_a_changed_source_fails_the_check_until_blocks_are_marked(checkout: Path) -> None:
    assert OLDER not in (checkout / "README.md").read_text(encoding="utf-8")
    assert differing(checkout, write=False) == []
    kernels = checkout / "search" / "backends" / "numba_kernels.py"
    kernels.write_text(kernels.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert "README.md" in differing(checkout, write=False)
    differing(checkout, write=True)
    block = next(block for block in BLOCKS if block.name == "planning core")
    note = rendered(block, checkout).splitlines()[-1]
    assert f"**{OLDER}**" in note
    assert "at commit d429037" in note
    assert differing(checkout, write=False) == []
    # A second change finds the mark already there.
    kernels.write_text("changed again", encoding="utf-8")
    assert differing(checkout, write=False) == []
    # Results of today's sources clear it.
    path = checkout / "docs" / "results" / "planning_core.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["provenance"]["source_digest"] = source_digest("planning_core", checkout)
    path.write_text(json.dumps(found), encoding="utf-8")
    assert "README.md" in differing(checkout, write=False)
    assert OLDER not in rendered(block, checkout)


def test_a_change_elsewhere_leaves_a_result_fresh(checkout: Path) -> None:
    before = source_digest("planning_core", checkout)
    (checkout / "policies" / "demo.py").write_text("changed", encoding="utf-8")
    assert source_digest("planning_core", checkout) == before
    assert source_digest("demo", checkout) != before


def test_a_renamed_source_file_changes_the_digest(checkout: Path) -> None:
    before = source_digest("planning_core", checkout)
    (checkout / "search" / "backends" / "numba_kernels.py").rename(
        checkout / "search" / "backends" / "renamed.py"
    )
    for path in (checkout / "search").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = text.replace("import numba_kernels", "import renamed")
        text = text.replace("search.backends.numba_kernels", "search.backends.renamed")
        path.write_text(text, encoding="utf-8")
    assert checkout / "search" / "backends" / "renamed.py" in source_files(
        "planning_core", checkout
    )
    assert source_digest("planning_core", checkout) != before


def test_a_root_or_pattern_without_a_file_is_an_error(checkout: Path) -> None:
    (checkout / "benchmarks" / "core" / "leaves_per_step.py").unlink()
    with pytest.raises(
        ValueError, match=r"imports 'benchmarks\.core\.leaves_per_step', which leads to no"
    ):
        source_digest("leaves_per_step", checkout)
    (checkout / "docs" / "real_data.sh").unlink()
    with pytest.raises(ValueError, match=r"real_data\.sh', which matches no file"):
        source_digest("real_data", checkout)


def test_a_changed_figure_in_a_document_or_in_results_fails_the_check(checkout: Path) -> None:
    readme = checkout / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("Ours loses 42 of 189", "Ours loses 41 of 189"), "utf-8")
    assert differing(checkout, write=False) == ["README.md"]
    readme.write_text(text, encoding="utf-8")
    change_results(checkout, "text_gains", held_out_prompts=601)
    assert differing(checkout, write=False) == ["README.md", "docs/text_search.md"]


def test_a_block_without_results_stays_and_fails_the_check_only(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = checkout / "README.md"
    text = readme.read_text(encoding="utf-8")
    (checkout / "docs" / "results" / "planning_core.json").unlink()
    readme.write_text(text.replace("Best-of-16 above", "Best-of-17 above"), encoding="utf-8")
    assert documents.main([], checkout) == 0
    assert readme.read_text(encoding="utf-8") == text, "other blocks are rendered again"
    warning = capsys.readouterr().err
    assert "docs/results/planning_core.json is missing" in warning
    assert "Run: python benchmarks/core/planning_core.py" in warning
    assert documents.main(["--check"], checkout) == 1
    assert "planning_core.json is missing" in capsys.readouterr().err


def test_an_update_after_a_benchmark_goes_on_past_missing_results(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documents, "ROOT", checkout)
    monkeypatch.setattr(documents.differing, "__defaults__", (checkout,))
    monkeypatch.setattr(documents.missing_results, "__defaults__", (checkout,))
    (checkout / "docs" / "results" / "cartpole.json").unlink()
    change_results(checkout, "text_gains", held_out_prompts=601)
    documents.update(checkout / "docs" / "results" / "text_gains.json")
    assert "cartpole.json is missing" in capsys.readouterr().err
    assert "601 held-out prompts" in (checkout / "README.md").read_text(encoding="utf-8")


def test_every_command_that_makes_results_is_there() -> None:
    for name, sources in SOURCES.items():
        (script,) = re.findall(r"\S+\.(?:py|sh)\b", sources.command)
        assert (ROOT / script).is_file(), name
        assert sources.roots[0].endswith(Path(script).stem)


def test_lost_marks_are_an_error(checkout: Path) -> None:
    readme = checkout / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("<!-- figures: demo -->", ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md: found blocks of figures"):
        differing(checkout, write=False)


def test_results_without_provenance_are_refused(checkout: Path) -> None:
    change_results(checkout, "demo", provenance={"command": "python x.py"})
    with pytest.raises(ValueError, match=r"demo\.json: found a provenance without commit"):
        differing(checkout, write=False)


def test_the_check_of_the_command_line_exits_with_one(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert documents.main(["--check"], checkout) == 0
    readme = checkout / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("Ours loses 42", "Ours loses 4"), encoding="utf-8")
    assert documents.main(["--check"], checkout) == 1
    assert REMEDY in capsys.readouterr().out
    assert documents.main([], checkout) == 0
    assert readme.read_text(encoding="utf-8") == text
    readme.write_text(f"{text}\nIt is 3.4 times as fast.\n", encoding="utf-8")
    assert documents.main(["--check"], checkout) == 1
    assert "outside a block of figures: README.md: '3.4'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "sentence",
    [
        "It is 3.4 times as fast.",
        "It is three times as fast, 28x at best.",
        "Accuracy reaches 0.71 on them.",
        "Runs take twelve minutes.",
        "Within half an hour it is done.",
        "Games bring 9,480 points.",
        "It gains +0.70 [+0.56, +0.85] in gold.",
        "Memory falls to 121 MB.",
        "It wins on 70 % of them.",
        "Nine methods were compared.",
        "It takes a fifth of the memory.",
        "```bash\nmake demo   # 6 minutes\n```",
        "It wins in 7 of 8 seeds.",
        "It wins in seven of eight seeds.",
        "In 5 of 6 tables it is ahead.",
        "Accuracy rose from 64 to 71.",
        "They score 21 against 14.",
        "A step costs 900 us.",
        "It takes 26 min.",
        "It makes 12k tokens a second.",
        "That halved the time.",
        "The score doubled.",
        "Three-quarters of it is left.",
        "two-thirds of prompts",
        "A dozen seeds were run.",
        "It is an order of magnitude faster.",
        "A gain of .36.",
        "Here p < .01.",
        "It returns 9480 points.",
        "A 28-fold speedup, or a threefold one.",
        "It is ten times as fast.",
        "0.7±0.1",
        "about ≈3",
        "1e-3 slower",
        "best-of-16 gains 1",
        "It wins on most prompts.",
        "Tens of thousands of games were played.",
        "`exploration` (now 10 for samples)",
        "![Gold](docs/results/demo_gains.png)",
        "See the [picture](results/demo_gains.png).",
    ],
)
def test_a_loose_figure_is_found(sentence: str) -> None:
    assert unsourced_numbers(f"Before it.\n\n{sentence}\n", {})


@pytest.mark.parametrize(
    "sentence",
    [
        "LightZero 0.2.0 with `--rounds 2` of MuZero; see [it](x_3.4.md).",
        "Two processes give the result of one, as in Stiennon et al. 2020.",
        "Qwen3-0.6B, hh-rlhf, T5, sm_80 and best-of-16 under Apache-2.0.",
        "## The 26 games\n\nSee [it](https://x.org/3.4), at `0.5` by `c = 1 / 2`.",
        "<!-- figures: x -->\n![x](results/x.png)\n<!-- end of figures: x -->",
        "<!-- figures: x -->\n3.4 times\n<!-- end of figures: x -->",
        "```python\nlearning_rate = 3.4  # a rate\n```",
    ],
)
def test_what_is_no_measurement_is_left_alone(sentence: str) -> None:
    assert unsourced_numbers(sentence, {}) == []


def test_an_allowed_phrase_covers_itself_only() -> None:
    assert unsourced_numbers("A cap of 40 frames.", {"A cap of 40 frames": "set"}) == []
    assert unsourced_numbers("A cap of 41 frames.", {"A cap of 40 frames": "set"})


def test_a_run_is_not_continued_with_other_sources(tmp_path: Path) -> None:
    run, digest = tmp_path / "run", source_digest("demo")
    with held_sources(run, "demo", digest):
        run.mkdir()
        (run / "config.yaml").write_text("seed: 1", encoding="utf-8")
    with held_sources(run, "demo", digest):
        pass
    kept = tmp_path / "run.sources.json"
    kept.write_text(json.dumps({"source_digest": "0" * 16}), encoding="utf-8")
    with (
        pytest.raises(ValueError, match="was begun with other source files"),
        held_sources(run, "demo", digest),
    ):
        pass
    kept.unlink()
    with pytest.raises(ValueError, match=NOT_RECORDED), held_sources(run, "demo", digest):
        pass


@pytest.fixture
def one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only source file of `demo`, which a test may change."""
    path = tmp_path / "code" / "policies" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text("A = 1", encoding="utf-8")
    sources = provenance.Sources("python policies/one.py")
    monkeypatch.setattr(provenance, "SOURCES", {**SOURCES, "demo": sources})
    monkeypatch.setattr(provenance.source_files, "__defaults__", (path.parents[1],))
    monkeypatch.setattr(provenance.source_digest, "__defaults__", (path.parents[1],))
    return path


def test_a_change_of_code_between_seeds_stops_the_benchmark(one_file: Path, tmp_path: Path) -> None:
    digest = provenance.source_digest("demo")
    with held_sources(tmp_path / "seed-1", "demo", digest):
        (tmp_path / "seed-1").mkdir()
    one_file.write_text("A = 2", encoding="utf-8")
    remedy = rf"changed while.*required: {digest}.*Put the files back"
    with pytest.raises(ValueError, match=remedy), held_sources(tmp_path / "seed-2", "demo", digest):
        pytest.fail("the second seed ran with other code")
    assert not (tmp_path / "seed-2.sources.json").exists()
    with pytest.raises(ValueError, match=remedy):
        require_sources("demo", digest)
    one_file.write_text("A = 1", encoding="utf-8")
    require_sources("demo", digest)


@pytest.mark.parametrize("left", ["A = 2", "A = (", None])
def test_a_run_during_which_code_changed_is_refused_even_after_it_is_put_back(
    one_file: Path, tmp_path: Path, left: str | None
) -> None:
    run, digest = tmp_path / "seed-1", provenance.source_digest("demo")

    def work() -> None:
        run.mkdir(exist_ok=True)
        (run / "records.jsonl").write_text("{}", encoding="utf-8")
        if left is None:
            one_file.unlink()
        else:
            one_file.write_text(left, encoding="utf-8")

    with pytest.raises(ValueError, match="required"), held_sources(run, "demo", digest):
        work()
    one_file.write_text("A = 1", encoding="utf-8")
    with pytest.raises(ValueError, match=CHANGED), held_sources(run, "demo", digest):
        pytest.fail("figures of two versions would be pooled")


def test_provenance_has_all_fields_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "demo.json")]
    found = provenance.provenance("demo", words, seeds=[1, 2], rounds=3)
    assert set(provenance.FIELDS) <= set(found)
    assert found["command"] == "python benchmarks/text/demo_seeds.py --out demo.json"
    assert found["source_digest"] == source_digest("demo")
    assert found["seeds"] == [1, 2]
    assert found["machine"]["cores"] >= 1
    assert str(tmp_path) not in json.dumps(found)


# What single blocks state


def block_text(name: str) -> str:
    return rendered(next(block for block in BLOCKS if block.name == name))


def test_a_side_with_fewer_rounds_shows_how_many() -> None:
    found = read_results("planning_core")
    usual = found["provenance"]["rounds"]
    row = next(
        row
        for row in found["cells"]
        if (row["algorithm"], row["batch"], row["actions"], row["simulations"])
        == ("muzero", 256, 18, 200)
    )
    rounds = len(row["sides"]["mctx"]["milliseconds"])
    line = next(x for x in block_text("planning core").splitlines() if "| 256 | 18 | 200 |" in x)
    assert rounds == 1
    assert usual == 3
    assert "×, 1 round)" in line


def test_the_number_of_methods_is_that_of_the_results() -> None:
    methods = {cell["method"] for cell in read_results("text_gains")["cells"]}
    text = block_text("methods compared")
    assert f" {len(methods)} methods (" in text
    assert all(method in text for method in methods)


def test_every_side_level_with_ours_is_named() -> None:
    text = block_text("costs of search")
    level = next(line for line in text.splitlines() if line.startswith("Level with ours"))
    for row in read_results("text_search")["cells"]:
        for side, found in row["sides"].items():
            times = found["times_yardstick"]
            if not side.startswith("ours") and times["low"] <= 1 <= times["high"]:
                assert f"`{row['cell']}`, {found['title']}" in level
    assert "`decision`, own keys/values, paths laid out anew" in level


def test_training_shows_both_yardsticks_rounds_and_updates() -> None:
    line = next(x for x in block_text("training").splitlines() if "hh-like | " in x)
    row = next(row for row in read_results("reward_training")["cells"] if "hh-like" in row["cell"])
    prefix = row["sides"]["prefix"]
    for yardstick in ("times_trl_sorted", "times_trl_without_checkpointing"):
        assert f"{prefix[yardstick]['cpu']['median']:.2f}" in line
    assert f"| {row['rounds']} × {row['updates']} |" in line


def test_the_value_heads_fitting_is_charged() -> None:
    found = read_results("text_gains")
    searched = [cell for cell in found["cells"] if cell["method"] != "best-of-N"]
    heads = found["value_heads"].values()
    for own in heads:
        own["samples"] = {"generated_tokens": 30_000, "read_tokens": 60_000}
        own["sentence"]["read_tokens"], own["token"]["read_tokens"] = 12_000, 24_000
    text = "\n\n".join(documents_text.gains(found))
    share = len(heads) / found["held_out_prompts"]
    for cell in searched:
        own_head = 24_000 if cell["method"] == "controlled decoding" else 12_000
        tokens = cell["tokens"] + 30_000 * share
        read = cell["model_tokens"] + (60_000 + own_head) * share
        assert f"| {tokens:.0f} / {read:.0f} |" in text
    assert f"sampling and scoring: {30_000 * len(heads):,} tokens generated" in text


def test_figures_of_a_run_trained_at_another_commit_are_older_than_the_code(tmp_path: Path) -> None:
    from benchmarks.reward.baselines import trained_by

    about = {"commit": "b" * 40, "source_digest": source_digest("hh_minilm")}
    kept = tmp_path / "environment.json"
    kept.write_text(json.dumps({"commit": "b" * 40}), encoding="utf-8")
    assert trained_by(tmp_path, about) == about
    kept.write_text(json.dumps({"commit": "a" * 40}), encoding="utf-8")
    expected = {"commit": "a" * 40, "source_digest": NOT_RECORDED}
    assert trained_by(tmp_path, about) == expected


@pytest.mark.parametrize(
    ("name", "block", "key"),
    [
        ("planning_core", "planning core", "cells"),
        ("text_search", "costs of search", "cells"),
        ("reward_scoring", "scoring", "cells"),
        ("reward_training", "training", "cells"),
        ("atari_speed", "beside LightZero", "cells"),
        ("atari_true_simulator", "true simulator", "summary"),
    ],
)
def test_results_of_a_few_cells_are_shown(checkout: Path, name: str, block: str, key: str) -> None:
    change_results(checkout, name, **{key: read_results(name)[key][-1:]})
    assert rendered(next(one for one in BLOCKS if one.name == block), checkout)


def test_real_data_is_collected_from_the_scripts_runs(tmp_path: Path) -> None:
    from benchmarks.reward.real_data import collect

    def write(path: str, content: Any) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(content), encoding="utf-8")

    half = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    fitted = {"rows": 9, "cut": 2, "loss_last": 4.5, "seconds": 1.0}
    write("sft/steps/sft.json", {"order": 0, "result": fitted})
    write("reward/steps/train.json", {"order": 0, "result": {"pairs": 9}})
    lengths = {f"accuracy_where_{kind}_chosen": half for kind in ("shorter", "longer")}
    baselines = {"longer reply": half, "bag of words": half}
    write("evaluation.json", {"pairs": 3, "accuracy": half, "baselines": baselines, **lengths})
    write("evaluate/config.yaml", {"limit": 8})
    write("evaluate/data/prompts.json", ["a", "b"])
    row = {"method": "beam search", "budget": "4", "tokens": 9.0, "proxy": half, "seconds": 1.0}
    write("evaluate/summary.json", [{**row, "gain_at_equal_tokens": None}])
    found = collect(tmp_path)
    assert set(found) == set(read_results("real_data")) - {"provenance"}
    text = "\n\n".join(documents_reward.real_data(found))
    assert "| beam search, 4 | 9 | 0.50 [0.40, 0.60] | – |" in text
    assert "2 of 9 training conversations were cut" in text


def test_cartpoles_curve_is_that_of_its_evaluations(tmp_path: Path) -> None:
    cartpole = pytest.importorskip("benchmarks.atari.cartpole", exc_type=ImportError)
    interval = {"estimate": 50.0, "low": 40.0, "high": 60.0}
    rows = [
        {"step": "part-1", "decisions": 4000, "updates": 750, "seconds": 9.0},
        {"step": "evaluation-1", "decisions": 4000, "updates": 750, "frames": 4000}
        | dict.fromkeys(cartpole.RETURNS, interval),
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (row,) = found = cartpole.curve(tmp_path)
    assert row["search_return"] == interval
    other = [{**row, **{key: {**interval, "estimate": 60.0} for key in cartpole.RETURNS}}]
    by_seed = {1: found, 2: other}
    text = "\n\n".join(
        documents_atari.cartpole(
            {"games": 16, "curve": cartpole.over_seeds(by_seed), "by_seed": by_seed}
        )
    )
    both = "55 [-9, 119]"  # Student's t with one degree of freedom, 12.71 deviations of the mean
    assert f"| 4,000 | {both} | {both} | {both} | 50, 60 |" in text
    with pytest.raises(ValueError, match=r"after \[4000, 8000\] decisions"):
        cartpole.over_seeds({1: found, 2: [{**row, "decisions": 8000}]})
