"""The documents' figures are those of the results files, and say so where the code has changed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    documents,
    documents_atari,
    documents_reward,
    documents_text,
    provenance,
)
from benchmarks.documents import BLOCKS, OLDER, differing, rendered
from benchmarks.loose_figures import loose_figures, loose_in
from benchmarks.provenance import NOT_RECORDED, ROOT, SOURCES, source_digest, source_files

RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))
REMEDY = "run: python benchmarks/documents.py"


def test_every_figure_of_the_documents_is_that_of_the_results() -> None:
    assert differing(write=False) == [], REMEDY


def test_no_measured_number_stands_outside_a_block_of_figures() -> None:
    assert loose_in(ROOT) == []


def test_headers_of_configurations_leave_results_to_the_documents() -> None:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        header = " ".join(re.findall(r"^# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert not re.search(r"\[[\d.,]+, [\d.,]+\]", header), path.name


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_record_where_they_come_from_and_are_shown(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    assert set(provenance.FIELDS) <= set(found)
    assert any(path.stem in block.results for block in BLOCKS)
    assert found["sources"] == list(SOURCES[path.stem])


@pytest.mark.parametrize("name", SOURCES)
def test_every_pattern_of_sources_matches_files(name: str) -> None:
    assert len(source_files(name)) > 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the documents, their results and one result's sources, all digests current."""
    for folder in ("docs", "configs", "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for package in ("search", "rewardmodel", "policies", "atari_bridge"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "README.md", tmp_path)
    for path in sorted((tmp_path / "docs" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        found["provenance"]["source_digest"] = source_digest(path.stem, tmp_path)
        path.write_text(json.dumps(found), encoding="utf-8")
    differing(tmp_path, write=True)
    return tmp_path


def change_results(root: Path, name: str, **changes: Any) -> None:
    path = root / "docs" / "results" / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**found, **changes}), encoding="utf-8")


def test_a_changed_source_fails_the_check_until_blocks_are_marked(checkout: Path) -> None:
    assert OLDER not in (checkout / "README.md").read_text(encoding="utf-8")
    assert differing(checkout, write=False) == []
    kernels = checkout / "search" / "kernels.py"
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
    (checkout / "search" / "kernels.py").rename(checkout / "search" / "renamed.py")
    assert source_digest("planning_core", checkout) != before


def test_a_pattern_without_a_file_is_an_error(checkout: Path) -> None:
    (checkout / "benchmarks" / "leaves_per_step.py").unlink()
    with pytest.raises(ValueError, match=r"leaves_per_step\.py', which matches no file"):
        source_digest("leaves_per_step", checkout)


def test_a_changed_figure_in_a_document_or_in_results_fails_the_check(checkout: Path) -> None:
    readme = checkout / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("Ours loses 42 of 189", "Ours loses 41 of 189"), "utf-8")
    assert differing(checkout, write=False) == ["README.md"]
    readme.write_text(text, encoding="utf-8")
    change_results(checkout, "text_gains", held_out_prompts=601)
    assert differing(checkout, write=False) == ["README.md", "docs/text_search.md"]


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
    ],
)
def test_a_loose_figure_is_found(sentence: str) -> None:
    assert loose_figures(f"Before it.\n\n{sentence}\n", {})


@pytest.mark.parametrize(
    "sentence",
    [
        "LightZero 0.2.0 with `--rounds 2` of MuZero; see [it](x_3.4.md).",
        "Two processes give the result of one, as in Stiennon et al. 2020.",
        "<!-- figures: x -->\n3.4 times\n<!-- end of figures: x -->",
        "```python\nlearning_rate = 3.4  # a rate\n```",
    ],
)
def test_what_is_no_measurement_is_left_alone(sentence: str) -> None:
    assert loose_figures(sentence, {}) == []


def test_an_allowed_phrase_covers_itself_only() -> None:
    assert loose_figures("A cap of 40 frames.", {"A cap of 40 frames": "set"}) == []
    assert loose_figures("A cap of 41 frames.", {"A cap of 40 frames": "set"})


def test_a_run_is_not_continued_with_other_sources(tmp_path: Path) -> None:
    run = tmp_path / "run"
    provenance.hold_sources(run, "demo")
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1", encoding="utf-8")
    provenance.hold_sources(run, "demo")
    kept = tmp_path / "run.sources.json"
    kept.write_text(json.dumps({"source_digest": "0" * 16}), encoding="utf-8")
    with pytest.raises(ValueError, match="was begun with other source files"):
        provenance.hold_sources(run, "demo")
    kept.unlink()
    with pytest.raises(ValueError, match=NOT_RECORDED):
        provenance.hold_sources(run, "demo")


def test_provenance_has_all_fields_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    command = ["python", "benchmarks/demo_seeds.py", "--out", str(tmp_path / "demo.json")]
    found = provenance.provenance("demo", command, seeds=[1, 2], rounds=3)
    assert set(provenance.FIELDS) <= set(found)
    assert found["command"] == "python benchmarks/demo_seeds.py --out demo.json"
    assert found["source_digest"] == source_digest("demo")
    assert found["seeds"] == [1, 2]
    assert found["machine"]["cores"] >= 1
    assert str(tmp_path) not in json.dumps(found)


# What single blocks state


def results(name: str) -> dict[str, Any]:
    path = ROOT / "docs" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def block_text(name: str) -> str:
    return rendered(next(block for block in BLOCKS if block.name == name))


def test_a_side_with_fewer_rounds_shows_how_many() -> None:
    found = results("planning_core")
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
    methods = {cell["method"] for cell in results("text_gains")["cells"]}
    text = block_text("methods compared")
    assert f" {len(methods)} methods (" in text
    assert all(method in text for method in methods)


def test_every_side_level_with_ours_is_named() -> None:
    text = block_text("costs of search")
    level = next(line for line in text.splitlines() if line.startswith("Level with ours"))
    for row in results("text_search")["cells"]:
        for side, found in row["sides"].items():
            times = found["times_yardstick"]
            if not side.startswith("ours") and times["low"] <= 1 <= times["high"]:
                assert f"`{row['cell']}`, {found['title']}" in level
    assert "`decision`, own keys/values, paths laid out anew" in level


def test_training_shows_both_yardsticks_rounds_and_updates() -> None:
    line = next(x for x in block_text("training").splitlines() if "hh-like | " in x)
    row = next(row for row in results("reward_training")["cells"] if "hh-like" in row["cell"])
    prefix = row["sides"]["prefix"]
    for yardstick in ("times_trl_sorted", "times_trl_without_checkpointing"):
        assert f"{prefix[yardstick]['cpu']['median']:.2f}" in line
    assert f"| {row['rounds']} × {row['updates']} |" in line


def test_the_value_heads_fitting_is_charged_where_it_is_recorded() -> None:
    found = results("text_gains")
    searched = [cell for cell in found["cells"] if cell["method"] != "best-of-N"]
    heads = found["value_heads"].values()
    for own in heads:
        own.pop("samples", None)
    text = documents_text.gains(found)
    assert text.count(f"| {NOT_RECORDED} |") == len(searched)
    for own in heads:
        own["samples"] = {"generated_tokens": 30_000, "read_tokens": 60_000}
        own["sentence"]["read_tokens"], own["token"]["read_tokens"] = 12_000, 24_000
    text = documents_text.gains(found)
    assert NOT_RECORDED not in text
    share = len(heads) / found["held_out_prompts"]
    for cell in searched:
        own_head = 24_000 if cell["method"] == "guided decoding" else 12_000
        tokens = cell["tokens"] + 30_000 * share
        read = cell["model_tokens"] + (60_000 + own_head) * share
        assert f"| {tokens:.0f} / {read:.0f} |" in text
    assert f"sampling and scoring: {30_000 * len(heads):,} tokens generated" in text


def test_figures_of_a_run_trained_at_another_commit_are_older_than_the_code(tmp_path: Path) -> None:
    from benchmarks.reward_baselines import trained_by

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
    change_results(checkout, name, **{key: results(name)[key][-1:]})
    assert rendered(next(one for one in BLOCKS if one.name == block), checkout)


def test_real_data_is_collected_from_the_scripts_runs(tmp_path: Path) -> None:
    from benchmarks.real_data import collect

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
    assert set(found) == set(results("real_data")) - {"provenance"}
    text = documents_reward.real_data(found)
    assert "| beam search, 4 | 9 | 0.50 [0.40, 0.60] | – |" in text
    assert "2 of 9 training conversations were cut" in text


def test_cartpoles_curve_is_that_of_its_evaluations(tmp_path: Path) -> None:
    cartpole = pytest.importorskip("benchmarks.cartpole", exc_type=ImportError)
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
    text = documents_atari.cartpole(
        {"games": 16, "curve": cartpole.over_seeds(by_seed), "by_seed": by_seed}
    )
    both = "55 [-9, 119]"  # Student's t with one degree of freedom, 12.71 deviations of the mean
    assert f"| 4,000 | {both} | {both} | {both} | 50, 60 |" in text
    with pytest.raises(ValueError, match=r"after \[4000, 8000\] decisions"):
        cartpole.over_seeds({1: found, 2: [{**row, "decisions": 8000}]})
