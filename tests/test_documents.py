"""The documents' figures are those of the results files, marked where the code has changed."""

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
from benchmarks.harness.import_closure import FIRST_PARTY
from benchmarks.harness.provenance import (
    ROOT,
    SOURCES,
    source_digest,
    source_files,
)
from benchmarks.harness.unsourced_numbers import unsourced_in

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
