import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from policies.collection import Samples, pairs_of, sample_responses, searched_demonstrations
from policies.evaluation import best_of_n_records, curves, kl_to, summarise
from policies.gain_report import closing_table
from policies.kv_tree import KVTree
from policies.language_model import Policy
from policies.leaf_values import ValueHead, boundary_states, fit_value_head
from policies.methods import build_searcher
from policies.proposals import Proposal
from search.evaluation.metrics import best_of_n_kl
from tests.fakes import CountingReward, policy_of

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
    cells = {(cell.method, cell.budget): cell for cell in summarise(rows, seed=0)}
    # Half-way in log tokens best-of-N stands at 2 + p, so the gain is 2 for every prompt.
    gain = cells["MCTS", "8"].gain_at_equal_tokens
    assert gain is not None
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((2, 2, 2))
    assert cells["MCTS", "64"].gain_at_equal_tokens is None, "best-of-N was not run that far"
    assert cells["best-of-N", "4"].gain_at_equal_tokens is None
    assert cells["best-of-N", "4"].kl == best_of_n_kl(4)
    panels = {(curve.panel, curve.label) for curve in curves(summarise(rows, seed=0))}
    assert panels == {(p, m) for p in ("gold", "proxy") for m in ("best-of-N", "MCTS")}


def test_without_a_judge_the_proxy_is_compared() -> None:
    ladder = (("best-of-N", "1", 1, 100), ("best-of-N", "4", 3, 400), ("m", "2", 5, 200))
    rows = [
        {**record(m, b, p, 0.0, t), "gold": None, "proxy": v + p}
        for m, b, v, t in ladder
        for p in range(3)
    ]
    cell = next(cell for cell in summarise(rows, seed=0) if cell.method == "m")
    assert cell.gold is None
    assert cell.gain_at_equal_tokens is not None
    assert cell.gain_at_equal_tokens.estimate == pytest.approx(3)


def test_best_of_n_records_choose_by_proxy_and_judge_by_gold() -> None:
    samples = Samples(["p"], [["aa", "b"]], [[4, 2]])

    class ByLength:
        def score(self, prompts: object, responses: list[str]) -> torch.Tensor:
            return torch.tensor([float(len(text)) for text in responses])

    def judge(prompts: object, responses: Any) -> list[float]:
        return [10.0 if text == "b" else 0.0 for text in responses]

    one, two = best_of_n_records(samples, ByLength(), judge, counts=[1, 2], seed=0, seconds=1.0)
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


def test_empty_answers_are_no_demonstrations() -> None:
    found = searched_demonstrations(["a", "b"], ["text", "  "])
    assert found.to_dict() == {"prompt": ["a"], "completion": ["text"]}


def test_a_policy_has_no_distance_from_itself_and_some_from_another(policy: Policy) -> None:
    samples = sample_responses(policy, PROMPTS, 4, proposal=SHORT, seed=0)
    assert kl_to(policy, policy, samples).estimate == pytest.approx(0, abs=1e-4)
    other = policy_of(policy.model.config, policy.encoder, seed=5)
    assert kl_to(policy, other, samples).estimate > 0


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
    tree = KVTree(policy, SHORT)
    roots = tree.add_prompts([policy.encoder.prompt_ids(p) for p in PROMPTS])
    values = head.values(tree, dict(zip(roots, PROMPTS, strict=True)), roots)
    assert values.tolist() == pytest.approx([0, 1, 2], abs=0.6)
    with pytest.raises(ValueError, match="holds no value head"):
        ValueHead.load(tmp_path)


def test_a_larger_budget_draws_more_tokens_for_every_method(policy: Policy) -> None:
    for method in ("best_of_n", "beam", "muzero", "gumbel"):
        spent = []
        for budget in (2, 8):
            searcher = build_searcher(
                method, budget, policy=policy, reward_model=CountingReward(), leaf_value=None,
                proposal=SHORT,
            )  # fmt: skip
            spent.append(sum(r.tokens for r in searcher.generate(PROMPTS, seed=0)))
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
        build_searcher(
            method, budget, policy=policy, reward_model=CountingReward(), leaf_value=None,
            proposal=SHORT,
        )  # fmt: skip


def test_tokens_are_drawn_within_top_k_and_top_p() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(4000, -1)
    generator = torch.Generator().manual_seed(0)
    assert set(Proposal(top_k=2).draw(logits, generator=generator).tolist()) == {0, 1}
    # Probabilities are .64 .24 .09 .03: the first two hold .88, so .8 keeps just them.
    assert set(Proposal(top_p=0.8).draw(logits, generator=generator).tolist()) == {0, 1}
    assert set(Proposal(top_p=0.5).draw(logits, generator=generator).tolist()) == {0}
    cold = Proposal(temperature=0.5).draw(logits, generator=generator)
    share = (cold == 0).float().mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(-2) + math.exp(-4) + math.exp(-6)), abs=0.03)


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
    cells = [asdict(cell) for cell in summarise(rows, seed=0)]
    shown = [{"policy": "base", **cell} for cell in cells]
    console = Console(width=80, file=io.StringIO())
    console.print(closing_table(shown, title="Gold"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert "base: MCTS (Gumbel), 16" in text
    assert "base: no search" in text
