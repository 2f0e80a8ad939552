import io
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from scipy import stats

from policies.evaluation.cells import curves, summarize
from policies.evaluation.gain_format import closing_table
from policies.evaluation.pooled import Pool, pool_lines, pool_records
from policies.evaluation.records import best_of_n_records, search_lines, search_records
from policies.finetuning.policy_kl import kl_to
from policies.finetuning.samples import Samples, pairs_of, sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.options import METHOD_NAMES
from policies.planning.scoring import TreeScorer
from policies.planning.value_head import ValueHead, boundary_states, fit_value_head
from prefsearch.statistics.best_of_n import best_of_n_kl
from search.evaluation.divergence import best_of_n_kl_estimate, kl_lower_bound_from_ranks
from tests.fakes import CountingReward, policy_of, search_of

PROMPTS = ["Tell me of the bell.\n", "How do I make a pie?\n", "What of the lake?\n"]
SHORT = Proposal(unit="sentence", segment_tokens=5, max_new_tokens=16)


def record(method: str, budget: str, prompt: int, gold: float, tokens: float) -> dict[str, Any]:
    return {
        "method": method, "budget": budget, "prompt": prompt, "gold": gold, "proxy": gold,
        "tokens": tokens, "seconds": 0.1,
    }  # fmt: skip


def test_gain_at_equal_tokens_is_read_off_the_best_of_n_curve() -> None:
    rows = [record("best-of-N", "1", p, 1.0 + p, 100) for p in range(3)]
    rows += [record("best-of-N", "4", p, 3.0 + p, 400) for p in range(3)]
    rows += [record("MCTS", "8", p, 4.0 + p, 200) for p in range(3)]
    rows += [record("MCTS", "64", p, 9.0 + p, 4000) for p in range(3)]
    cells = {(cell.method, cell.budget): cell for cell in summarize(rows, seed=0)}
    # Half-way in log tokens best-of-N stands at 2 + p, so the gain is 2 for every prompt.
    gain = cells["MCTS", "8"].gain_at_equal_tokens
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((2, 2, 2))
    assert cells["MCTS", "64"].gain_at_equal_tokens is None, "best-of-N was not run that far"
    assert cells["best-of-N", "4"].gain_at_equal_tokens is None
    assert cells["best-of-N", "4"].kl == best_of_n_kl(4)
    panels = {(curve.panel, curve.label) for curve in curves(summarize(rows, seed=0))}
    assert panels == {(p, m) for p in ("gold", "proxy") for m in ("best-of-N", "MCTS")}


def test_without_gold_the_proxy_is_compared() -> None:
    points = (("best-of-N", "1", 1, 100), ("best-of-N", "4", 3, 400), ("m", "2", 5, 200))
    rows = [
        {**record(m, b, p, 0.0, t), "gold": None, "proxy": v + p}
        for m, b, v, t in points
        for p in range(3)
    ]
    cell = next(cell for cell in summarize(rows, seed=0) if cell.method == "m")
    assert cell.gold is None
    assert cell.gain_at_equal_tokens.estimate == pytest.approx(3)


def test_best_of_n_records_choose_by_proxy_and_evaluate_by_gold() -> None:
    ids = [[[5, 5, 5, 2], [6, 2]]]
    samples = Samples(["p"], [["aa", "b"]], ids, [[-4.0, -2.0]])

    class ByLength:
        def score(self, prompts: object, responses: list[str]) -> torch.Tensor:
            return torch.tensor([float(len(text)) for text in responses])

    def gold(prompts: object, responses: Any) -> list[float]:
        return [10.0 if text == "b" else 0.0 for text in responses]

    one, two = best_of_n_records(samples, ByLength(), gold, counts=[1, 2], seed=0, seconds=1.0)
    assert (one["proxy"], one["gold"], one["tokens"]) == (1.5, 5.0, 3.0)
    assert (two["proxy"], two["gold"], two["tokens"]) == (2.0, 0.0, 6.0)


def test_samples_repeat_by_seed_and_pair_up(policy: Policy) -> None:
    first = sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=0)
    again = sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=0)
    assert first == again
    assert first != sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=1)
    prompts, left, right = pairs_of(first)
    assert prompts == [p for p in PROMPTS for _ in range(2)]
    assert left[:2] == [first.texts[0][0], first.texts[0][2]]
    assert right[:2] == [first.texts[0][1], first.texts[0][3]]
    assert all(count <= 16 for row in first.tokens for count in row)


def test_a_policy_has_no_distance_from_itself_and_some_from_another(policy: Policy) -> None:
    samples = sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=0)
    assert kl_to(policy, samples).estimate == pytest.approx(0, abs=1e-4)
    other = policy_of(policy.model.config, policy.encoder, seed=5)
    assert kl_to(other, samples).estimate > 0


def test_the_distance_is_that_of_the_tokens_drawn_and_runs_the_reference_alone(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = policy_of(policy.model.config, policy.encoder, seed=5)
    samples = sample_responses(policy, PROMPTS, 3, proposal=SHORT, seed=0)
    gaps = []
    for prompt, responses in zip(samples.prompts, samples.ids, strict=True):
        asked = policy.encoder.prompt_ids(prompt)
        for ids in responses:
            logs = []
            for model in (policy.model, other.model):
                with torch.inference_mode():
                    logits = model(input_ids=torch.tensor([asked + ids])).logits[0]
                taken = logits.log_softmax(-1)[len(asked) - 1 : -1]
                logs.append(taken.gather(-1, torch.tensor(ids)[:, None]).sum().item())
            gaps.append(logs[0] - logs[1])
    # Texts that do not encode to what was drawn change nothing.
    garbled = replace(samples, texts=[["?" for _ in row] for row in samples.texts])
    monkeypatch.setattr(policy, "model", None)
    found = kl_to(other, garbled, batch_size=4)
    assert found.estimate == pytest.approx(sum(gaps) / len(gaps), abs=1e-3)


def test_boundary_states_are_those_after_the_prompt_and_each_unfinished_sentence(
    policy: Policy,
) -> None:
    sentences = Proposal(unit="sentence", segment_tokens=50, max_new_tokens=60)
    texts = ["The bell rang. The lake froze. Home", "Pie."]
    states, owners = boundary_states(policy, sentences, PROMPTS[:2], texts)
    # After the prompt, "rang." and "froze."; after the prompt and "Pie.".
    assert owners.tolist() == [0, 0, 0, 1, 1]
    encoder = policy.encoder
    starts = ["", "The bell rang.", "The bell rang. The lake froze."]
    for state, start in zip(states[:3], starts, strict=True):
        ids = encoder.prompt_ids(PROMPTS[0]) + encoder.response_ids(start, finished=False)
        with torch.inference_mode():
            output = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(state, output.hidden_states[-1][0, -1], atol=1e-4, rtol=1e-3)


def test_a_value_head_learns_what_the_state_shows_and_survives_saving(
    policy: Policy, tmp_path: Path
) -> None:
    samples = sample_responses(policy, PROMPTS * 20, 2, proposal=SHORT, seed=0)
    prompts, responses = samples.flat()
    # The score is known from the prompt alone, so every state can tell it.
    scores = torch.tensor([float(PROMPTS.index(prompt)) for prompt in prompts])
    found = fit_value_head(
        policy, SHORT, prompts, responses, scores, tmp_path / "v", seed=0, epochs=60
    )
    assert found["explained_variance"] > 0.5
    head = ValueHead.load(tmp_path / "v")
    tree = SegmentTree(policy, SHORT)
    roots = tree.add_prompts(PROMPTS)
    values = head.values(TreeScorer(tree, CountingReward()), roots)
    assert values.tolist() == pytest.approx([0, 1, 2], abs=0.6)
    with pytest.raises(ValueError, match="holds no value head"):
        ValueHead.load(tmp_path)


def test_a_larger_budget_draws_more_tokens(policy: Policy) -> None:
    # MuZero may spend simulations on a line it has drawn already; votes are best-of-N's draws.
    for method in set(METHOD_NAMES) - {"weighted", "majority", "muzero"}:
        spent = []
        for budget in (2, 8):
            searcher = search_of(policy, method, budget, SHORT)
            spent.append(sum(r.tokens for r in searcher.generate(PROMPTS[:2], seed=0)))
        assert spent[0] < spent[1], method


@pytest.mark.parametrize(
    ("method", "budget", "message"),
    [
        ("astar", 4, "method: found 'astar'"),
        ("beam", 0, "budget: found 0"),
        ("beam", 6, "budget: found 6 for beam search"),
    ],
)
def test_unknown_methods_and_empty_budgets_are_refused(
    method: Any, budget: int, message: str, policy: Policy
) -> None:
    with pytest.raises(ValueError, match=message):
        search_of(policy, method, budget, SHORT)


def test_tokens_are_drawn_within_top_k_and_top_p() -> None:
    policy = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).log_softmax(-1).expand(4000, -1)
    levels = (torch.arange(4000) + 0.5) / 4000
    assert set(Proposal(top_k=2).draw(policy, levels).tolist()) == {0, 1}
    # Probabilities are .64 .24 .09 .03: the first two hold .88, so .8 keeps just them.
    assert set(Proposal(top_p=0.8).draw(policy, levels).tolist()) == {0, 1}
    assert set(Proposal(top_p=0.5).draw(policy, levels).tolist()) == {0}
    cold = Proposal(temperature=0.5).draw(policy, levels)
    share = (cold == 0).float().mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(-2) + math.exp(-4) + math.exp(-6)), abs=0.01)


@pytest.mark.parametrize(
    ("unit", "ends"),
    [("sentence", {".", "!", "\n"}), ("line", {"\n"}), ("block", set()), ("response", set())],
)
def test_segments_end_where_their_unit_says(unit: Any, ends: set[str], policy: Policy) -> None:
    tokenizer = policy.encoder.tokenizer
    marks = Proposal(unit=unit).boundaries(tokenizer, len(tokenizer) + 3)
    assert marks.shape == (len(tokenizer) + 3,)
    for text in (".", "!", "\n", "a", ","):
        (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert bool(marks[token]) == (text in ends), text


def test_the_closing_table_fits_a_terminal_of_80_columns() -> None:
    rows = [record("best-of-N", "64", p, 1.0 + p, 3000.0) for p in range(3)]
    rows += [record("best-of-N", "1", p, -1.0 - p, 30.0) for p in range(3)]
    rows += [record("MCTS (Gumbel)", "16", p, -2.0 - p, 2000.0) for p in range(3)]
    cells = [asdict(cell) for cell in summarize(rows, seed=0)]
    shown = [{"policy": "base", **cell} for cell in cells]
    for policy, named in (("base", "\nMCTS (Gumbel), 16"), ("tuned", "base: MCTS (Gumbel), 16")):
        shown[0] = {**shown[0], "policy": policy}
        file = io.StringIO()
        Console(width=80, file=file).print(closing_table(shown, title="Gold"))
        text = file.getvalue()
        assert "…" not in text
        assert named in text
        assert "no search" in text
        assert ("base" in text) == (policy == "tuned"), "one policy needs no name"


def pool_of(policy: Policy, gold: Any = None, *, size: int = 4) -> tuple[Pool, Samples]:
    samples = sample_responses(policy, PROMPTS, size, proposal=SHORT, seed=0)
    found = pool_lines(samples, CountingReward(), gold, policy=policy, rows=2 * size)
    return Pool.of([{**line, "seconds": 2.0} for line in found]), samples


def test_the_pools_last_budget_costs_what_a_search_over_it_costs(policy: Policy) -> None:
    pool, samples = pool_of(policy)
    records = pool_records(pool, "best_of_n", counts=[1, 4], seed=0)
    searcher = search_of(policy, "best_of_n", 4, SHORT)
    for index, result in enumerate(searcher.generate(PROMPTS, seed=0)):
        one, whole = (r for r in records if r["prompt"] == index)
        assert whole["tokens"] == result.tokens == sum(map(len, samples.ids[index]))
        assert whole["forward_tokens"] == result.forward_tokens
        assert whole["proxy"] == pytest.approx(result.score)
        prompt = len(policy.encoder.prompt_ids(PROMPTS[index]))
        # A fourth of the samples costs a fourth, but for the prompt.
        assert one["tokens"] == whole["tokens"] / 4
        assert one["forward_tokens"] - prompt == (whole["forward_tokens"] - prompt) / 4
        assert (one["seconds"], whole["seconds"]) == (0.5, 2.0)
        assert whole["scored_tokens"] == 0, "this reward model does not count"


def test_the_reward_models_reading_is_counted_and_grows_with_the_samples(policy: Policy) -> None:
    class Session(CountingReward):
        forward_tokens = 0

        def session(self) -> "Session":
            return Session()

        def score(self, prompts: Any, responses: Any, *, finished: bool = True) -> torch.Tensor:
            self.forward_tokens += 100 * len(set(prompts)) + 10 * len(responses)
            return super().score(prompts, responses)

        def keep(self, prompts: Any) -> None: ...

    samples = sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=0)
    found = pool_lines(samples, Session(), None, policy=policy)
    assert [line["scored_tokens"] for line in found] == [140, 140, 140]
    pool = Pool.of([{**line, "seconds": 1.0, "prompt_tokens": 100} for line in found])
    scored = {
        r["budget"]: r["scored_tokens"]
        for r in pool_records(pool, "best_of_n", counts=[1, 2, 4], seed=0)
    }
    assert scored == {"1": 110, "2": 120, "4": 140}


def test_votes_choose_from_the_same_pool_by_answer() -> None:
    texts = [["answer: 1", "answer: 1", "answer: 2"]] * 2
    samples = Samples(["p", "q"], texts, [[[7, 2]] * 3] * 2, [[-1.0] * 3] * 2)

    class Second:
        def score(self, prompts: Any, responses: Any) -> torch.Tensor:
            return torch.tensor([5.0 if text.endswith("2") else 0.0 for text in responses])

    def gold(prompts: Any, responses: Any) -> list[float]:
        return [float(text.endswith("1")) for text in responses]

    found = pool_lines(samples, Second(), gold)
    pool = Pool.of([{**line, "seconds": 1.0} for line in found])
    found = {
        method: pool_records(pool, method, counts=[3], seed=0)[0]["gold"]
        for method in ("best_of_n", "weighted", "majority")
    }
    assert found == {"best_of_n": 0.0, "weighted": 0.0, "majority": 1.0}
    (one,) = {r["kl_bound"] for r in pool_records(pool, "majority", counts=[3], seed=0)}
    assert one == pytest.approx(math.log(3)), "any choice among three is at most thrice as likely"


def test_right_or_wrong_gold_gives_pass_at_k_and_other_gold_none(policy: Policy) -> None:
    def right(prompts: Any, responses: Any) -> list[float]:
        return [1.0, 0.0, 0.0, 0.0] * (len(responses) // 4)

    pool, _ = pool_of(policy, right)
    by_n = {
        r["budget"]: r["pass_at_k"]
        for r in pool_records(pool, "best_of_n", counts=[1, 2, 4], seed=0)
    }
    assert by_n == pytest.approx({"1": 0.25, "2": 0.5, "4": 1.0})
    pool, _ = pool_of(policy, lambda p, r: [0.5] * len(r))
    assert "pass_at_k" not in pool_records(pool, "best_of_n", counts=[2], seed=0)[0]


def test_the_divergence_of_best_of_n_knows_how_likely_the_chosen_are(policy: Policy) -> None:
    pool, samples = pool_of(policy)
    logs = torch.tensor(samples.log_probabilities).log_softmax(-1).numpy()  # likelier: it shows
    pool = replace(pool, log_probabilities=logs)
    record = pool_records(pool, "best_of_n", counts=[4], seed=0)[0]
    best = int(pool.proxy[0].argmax())
    assert record["kl_estimate"] == pytest.approx(best_of_n_kl_estimate(logs[0, [best]], 4)[0])
    assert record["kl_tight"] < best_of_n_kl(4)
    cut = pool_records(pool, "best_of_n", counts=[4], seed=0, own_samples=False)[0]
    assert "kl_estimate" not in cut, "log-probabilities are not those of the draws"


def test_a_search_is_bounded_from_below_by_its_ranks_in_the_pool(policy: Policy) -> None:
    pool, _ = pool_of(policy)
    searcher = search_of(policy, "gumbel_muzero", 4, SHORT)
    records, results = search_records(searcher, PROMPTS, None, method="MCTS", budget="4", seed=9)
    rows = [*pool_records(pool, "best_of_n", counts=[1, 4], seed=0), *records]
    cell = next(cell for cell in summarize(rows, seed=0, pool=pool) if cell.method == "MCTS")
    scores = [result.score for result in results]
    assert cell.kl_low == kl_lower_bound_from_ranks(pool.proxy, scores, seed=0)
    bounds = [result.kl_bound or 0.0 for result in results]
    assert cell.kl == pytest.approx(sum(bounds) / 3)
    assert cell.tokens == pytest.approx(sum(result.tokens for result in results) / 3)
    assert cell.forward_tokens == pytest.approx(sum(r.forward_tokens for r in results) / 3)
    without = summarize(rows, seed=0)
    assert all(cell.kl_low is None for cell in without)


def test_gains_at_equal_reading_count_reward_models_too() -> None:
    def read(row: dict[str, Any], forward: float, scored: float) -> dict[str, Any]:
        return {**row, "forward_tokens": forward, "scored_tokens": scored}

    rows = [read(record("best-of-N", "1", p, 1.0, 100), 60, 40) for p in range(3)]
    rows += [read(record("best-of-N", "4", p, 3.0, 400), 240, 160) for p in range(3)]
    rows += [read(record("MCTS", "8", p, 4.0, 100), 50, 150) for p in range(3)]
    cells = summarize(rows, seed=0)
    cell = next(cell for cell in cells if cell.method == "MCTS")
    assert cell.model_tokens == 200
    assert cell.gain_at_equal_tokens.estimate == pytest.approx(3)
    assert cell.gain_at_equal_model_tokens.estimate == pytest.approx(2)
    drawn = [c for c in curves(cells, cost="model_tokens") if c.label == "MCTS"]
    assert drawn[0].arrays[0].tolist() == [200]


def test_intervals_are_over_prompts_however_many_samples_there_are(policy: Policy) -> None:
    # All of a prompt's samples agree; only prompts differ.
    def by_prompt(prompts: Any, responses: Any) -> list[float]:
        return [float(PROMPTS.index(prompt)) for prompt in prompts]

    pool, _ = pool_of(policy, by_prompt, size=16)
    (cell,) = summarize(pool_records(pool, "best_of_n", counts=[1], seed=0), seed=0)
    assert cell.gold.estimate == pytest.approx(1.0)
    # Of 0, 1 and 2 the standard error is 1 / sqrt(3): three prompts say little.
    half = stats.t.ppf(0.975, 2) / 3**0.5
    assert (cell.gold.low, cell.gold.high) == pytest.approx((1 - half, 1 + half))
    assert cell.gold.scope == "over 3 prompts of one seed; nothing is known of other seeds"


def test_a_gold_score_of_a_search_that_is_no_number_is_named(policy: Policy) -> None:
    results = search_of(policy, "best_of_n", 2, SHORT).generate(PROMPTS, seed=0)
    with pytest.raises(ValueError, match="scored row 41 as nan"):
        search_lines(results, lambda p, r: [0.0, math.nan, 0.0], first=40)
