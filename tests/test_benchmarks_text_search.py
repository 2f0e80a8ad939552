"""The text-search benchmark: the peers' hidden states, equal decisions of all sides, ratios."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness.provenance import source_digest
from benchmarks.text import text_search
from benchmarks.text.models import Subject, build_subject, counted_tokens, draw_prompts
from benchmarks.text.run import (
    Cell,
    Outcome,
    alike,
    goals,
    ratio,
    ratio_after_prompts,
    run_cell,
    summary,
)
from benchmarks.text.sampling import BestOf, prompt_cache
from benchmarks.text.searches import STORES, Searches
from benchmarks.text.segments import BLOCK
from benchmarks.text.segments import STORES as SEGMENT_STORES

TOLERANCE = 1e-4  # float32 sums in another order; hidden states are about 1


@pytest.fixture(scope="module")
def subject() -> Subject:
    return build_subject("micro")


def plain_hidden(subject: Subject, rows: Sequence[Sequence[int]]) -> Tensor:
    """Last hidden states of texts, each run alone and from its beginning."""
    body = subject.policy.model.base_model
    with torch.inference_mode():
        found = [body(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
    return torch.stack(found)


def prompt_ids(subject: Subject, count: int, tokens: int) -> list[list[int]]:
    encoder = subject.policy.encoder
    return [encoder.prompt_ids(prompt) for prompt in draw_prompts(subject, count, tokens)]


def test_text_and_tokens_are_the_same_thing(subject: Subject) -> None:
    (ids,) = prompt_ids(subject, 1, 9)
    encoder = subject.policy.encoder
    assert len(ids) == 9
    assert encoder.response_ids(encoder.tokenizer.decode(ids), finished=False) == ids


@pytest.mark.parametrize("name", STORES)
@torch.inference_mode()
def test_stores_give_the_hidden_states_of_plain_runs_on_unequal_paths(
    subject: Subject, name: str
) -> None:
    store = STORES[name](subject.policy.model)
    rows = prompt_ids(subject, 3, 11)
    nodes, hidden = store.start(rows)
    torch.testing.assert_close(hidden, plain_hidden(subject, rows), atol=TOLERANCE, rtol=TOLERANCE)
    texts = dict(zip(nodes, rows, strict=True))
    # One parent twice, parents of different depths side by side, a lone one.
    for chosen in ([0, 1, 1], [3, 0, 4], [6, 2, 8, 5], [9]):
        parents = [list(texts)[i] for i in chosen]
        tokens = [20 + 3 * len(texts) + i for i in range(len(parents))]
        made, hidden = store.feed(parents, tokens)
        new = [[*texts[p], t] for p, t in zip(parents, tokens, strict=True)]
        expected = plain_hidden(subject, new)
        torch.testing.assert_close(hidden, expected, atol=TOLERANCE, rtol=TOLERANCE)
        texts.update(zip(made, new, strict=True))


@pytest.mark.parametrize("name", SEGMENT_STORES)
@torch.inference_mode()
def test_segment_stores_give_the_hidden_states_of_plain_runs(subject: Subject, name: str) -> None:
    store = SEGMENT_STORES[name](subject.policy.model.base_model)
    rows = prompt_ids(subject, 2, 7)
    nodes, _ = store.start(rows)
    texts = dict(zip(nodes, rows, strict=True))

    for chosen in ([0, 1], [2, 0, 1], [4, 2]):
        parents = [list(texts)[i] for i in chosen]
        seen: list[Tensor] = []
        drawn: list[list[int]] = [[] for _ in chosen]

        def draw(
            hidden: Tensor,
            keys: Sequence[int],
            place: int,
            seen: list[Tensor] = seen,
            drawn: list[list[int]] = drawn,
        ) -> Tensor:
            seen.append(hidden)
            tokens = [(7 * key + 5 * place) % 90 + 3 for key in keys]
            for line, token in enumerate(tokens):
                drawn[line].append(token)
            return torch.tensor(tokens)

        made, hidden = store.extend(parents, list(chosen), draw)
        before = plain_hidden(subject, [texts[parent] for parent in parents])
        torch.testing.assert_close(seen[0], before, atol=TOLERANCE, rtol=TOLERANCE)
        new = [[*texts[p], *own] for p, own in zip(parents, drawn, strict=True)]
        assert {len(own) for own in drawn} == {BLOCK}
        expected = plain_hidden(subject, new)
        torch.testing.assert_close(hidden, expected, atol=TOLERANCE, rtol=TOLERANCE)
        texts.update(zip(made, new, strict=True))


@pytest.mark.parametrize("planner", ["gumbel", "muzero"])
@pytest.mark.parametrize("second_model", [False, True])
def test_all_sides_of_a_search_over_tokens_decide_alike(
    subject: Subject, planner: str, second_model: bool
) -> None:
    prompts = draw_prompts(subject, 3, 10)
    searches = Searches(subject, prompts, 24, 4, planner=planner, second_model=second_model)
    for leaves in (1, 4):
        with counted_tokens(subject.policy.model) as seen:
            ours = searches.ours(leaves)()
        assert ours.visits is not None
        assert [sum(row) for row in ours.visits] == [24] * 3
        # Every token goes through the model once.
        assert sum(seen) - (ours.padding or 0) == 3 * 10 + ours.counts["nodes"]
        for store in STORES:
            assert searches.peer(store, leaves)().visits == ours.visits, store


def test_all_sides_of_a_search_over_blocks_decide_alike(subject: Subject) -> None:
    searches = Searches(subject, draw_prompts(subject, 2, 10), 6, 3, blocks=True)
    for leaves in (1, 3):
        ours = searches.ours(leaves)()
        for store in SEGMENT_STORES:
            assert searches.peer(store, leaves)().visits == ours.visits, store


@torch.inference_mode()
def test_a_repeated_prompt_cache_gives_the_scores_of_full_sequences(subject: Subject) -> None:
    (prompt,) = prompt_ids(subject, 1, 9)
    responses = torch.tensor(prompt_ids(subject, 4, 5))
    classifier = subject.value_model.model
    hidden = classifier.base_model(
        input_ids=responses,
        past_key_values=prompt_cache(classifier, torch.tensor([prompt]), 4),
        use_cache=True,
    ).last_hidden_state[:, -1]
    whole = torch.cat([torch.tensor([prompt]).expand(4, -1), responses], dim=1)
    expected = classifier(input_ids=whole).logits
    found = classifier.score(hidden)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_best_of_sides_sample_and_score_all_responses(subject: Subject) -> None:
    best = BestOf(subject, draw_prompts(subject, 1, 12)[0], 5, 6)
    for side, run in best.cell("best-of", "").sides.items():
        with counted_tokens(subject.policy.model) as seen:
            assert run().counts["responses"] == 5, side
        # Without a shared prompt it is run five times.
        assert (sum(seen) >= 5 * 12) == (side == "generate"), side


def timed(seconds: Sequence[float], prompts: float = 1.0) -> dict[str, Any]:
    times = [{"cpu": one, "wall": 2 * one} for one in seconds]
    counts = {"prompt_tokens": 10, "nodes": 5, "policy_tokens": 17, "policy_padding": 2}
    return {**summary(times, [{"prompts": prompts}] * len(times)), "counts": counts}


def test_ratios_are_of_times_of_one_round() -> None:
    slow, fast = timed([8.0, 12.0, 30.0]), timed([2.0, 4.0, 3.0])
    assert ratio(slow, fast) == {"median": 4.0, "low": 3.0, "high": 10.0}
    assert ratio_after_prompts(slow, fast) == pytest.approx(11 / 2)
    assert fast["wall_seconds"] == 6.0


def test_agreement_is_a_share_of_prompts() -> None:
    assert alike([[[1, 2], [3, 0]], [[1, 2], [2, 1]]]) == 0.5
    assert alike([None, None]) is None
    assert alike([]) is None


def test_a_side_that_fails_is_written_down_and_the_others_are_timed(subject: Subject) -> None:
    def broken() -> Outcome:
        raise AssertionError("no memory")

    sides = {"first": broken, "second": lambda: Outcome([[1, 2]])}
    titles = dict.fromkeys(sides, "")
    cell = Cell("any", "", sides, titles, (("first", "second"),), prompts=1, work=1)
    row = run_cell(cell, subject, rounds=2, report=lambda line: None)
    assert row["failed"] == {"first": "AssertionError: no memory"}
    assert row["yardstick"] == "second"
    assert len(row["sides"]["second"]["cpu_all"]) == 2
    assert row["agreement"] == [{"sides": ["second"], "prompts_alike": 1.0}]


def test_goals_are_judged_by_the_median_ratio() -> None:
    sides = {"ours": timed([1.0], prompts=0.5), "rerun": timed([16.0]), "copy": timed([4.0])}
    found = {goal["goal"]: goal["met"] for goal in goals([{"cell": "search-8", "sides": sides}])}
    assert found == {
        "search-8: 'ours' at least 15 times as fast as 'rerun'": True,
        "search-8: 'ours' at least 5 times as fast as 'copy'": False,
        "search-8: tokens given to the policy are prompts and new nodes": True,
    }


def test_quick_form_measures_shows_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "text_search.json"
    threads = torch.get_num_threads()
    try:
        text_search.main(
            ["--quick", "--simulations", "4", "--out", str(out), "--threads", str(threads)]
        )
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    assert [row["cell"] for row in found["cells"]] == list(text_search.CELLS)
    assert found["goals"] == []  # they are about the usual sizes
    assert "prefsearch, one leaf a step" in capsys.readouterr().out
    for row in found["cells"]:
        for group in row["agreement"]:
            assert group["prompts_alike"] in (None, 1.0)


def test_cells_of_an_earlier_run_stay_only_where_settings_and_sources_are_the_same(
    tmp_path: Path,
) -> None:
    out = tmp_path / "text_search.json"
    row = {"cell": "segments", "sides": {}}
    options = text_search.parse_options(["--cells", "search-1", "--out", str(out)])
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    assert text_search.kept_cells(options, settings) == {}
    earlier = {**settings, "cells": ["segments"], "rounds": 1}
    digest = source_digest("text_search")
    for more, source, kept in (
        ({}, digest, True),
        ({"simulations": 3}, digest, False),
        ({}, "of other code", False),
    ):
        written = {
            "provenance": {"source_digest": source},
            "settings": {**earlier, **more},
            "cells": [row],
            "llm-reasoners": "1.0.2",
        }
        out.write_text(json.dumps(written))
        found = text_search.kept_cells(options, settings)
        assert found == ({"segments": row, "llm-reasoners": "1.0.2"} if kept else {})
