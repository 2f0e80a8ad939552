"""Provenance of results: sources held during a run, and fields recorded."""

import json
from pathlib import Path

import pytest

from benchmarks.harness import provenance
from benchmarks.harness.provenance import (
    CHANGED,
    NOT_RECORDED,
    SOURCES,
    held_sources,
    require_sources,
    source_digest,
)


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


def test_figures_of_a_run_trained_at_another_commit_are_older_than_the_code(tmp_path: Path) -> None:
    from benchmarks.reward.baselines import trained_by

    about = {"commit": "b" * 40, "source_digest": source_digest("hh_minilm")}
    kept = tmp_path / "environment.json"
    kept.write_text(json.dumps({"commit": "b" * 40}), encoding="utf-8")
    assert trained_by(tmp_path, about) == about
    kept.write_text(json.dumps({"commit": "a" * 40}), encoding="utf-8")
    expected = {"commit": "a" * 40, "source_digest": NOT_RECORDED}
    assert trained_by(tmp_path, about) == expected
