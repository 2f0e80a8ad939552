"""A reply that was cut off at max_new_tokens is not finished, wherever it goes."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

import policies.generation.language_model as language_model
from policies.evaluation.cells import summarize
from policies.evaluation.gold_scorer import ModelGoldScorer, gold_scores
from policies.evaluation.pooled import Pool, pool_lines, pool_records
from policies.evaluation.records import records_of_lines, search_lines
from policies.finetuning.samples import (
    Samples,
    finished_pairs_of,
    pairs_of,
    sample_responses,
    searched_demonstrations,
)
from policies.generation.language_model import Policy, fine_tune
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import Rollout
from policies.planning.options import METHOD_NAMES, MethodName
from policies.planning.value_head import boundary_states
from policies.planning.voting import choose
from prefsearch.cli.entry import main
from rewardmodel.data.conversation import row_of
from rewardmodel.data.json_lines import json_lines
from rewardmodel.data.parsing.finished import replies_finished
from rewardmodel.data.preferences import load_demonstrations, load_preferences
from rewardmodel.data.rankings import load_rankings, pairs_from_rankings
from rewardmodel.data.rows import PreferenceDataError
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.synthetic.human import SimulatedHuman
from rewardmodel.synthetic.world import sample_requests
from rewardmodel.training.batching.comparisons import _ranked_groups, tokenize_comparisons
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from tests.chat_models import PROMPTS as CHAT_PROMPTS
from tests.chat_models import chat_tokenizer, write_chat_policy
from tests.fakes import CountingReward, search_of
from tests.reward_folders import CLOSE, save_classifier

PROMPTS = ["Write of rain.", "Write of the sea.", "Write of a crow."]


class Marked:
    """Scores by length; keeps which responses were marked as finished."""

    def __init__(self) -> None:
        self.marks: dict[str, bool] = {}

    def score(self, prompts: Sequence[str], responses: Sequence[str], *, finished: Any) -> Tensor:
        if not isinstance(finished, bool):  # one mark for all unfinished text
            self.marks.update(zip(responses, finished, strict=True))
        return torch.tensor([float(len(text)) for text in responses])


def ends_with_end_token(policy: Policy, ids: Sequence[int]) -> bool:
    return ids[-1] in policy.end_ids


def test_samples_know_which_were_cut_off(policy: Policy, caplog: pytest.LogCaptureFixture) -> None:
    made = sample_responses(policy, PROMPTS, 8, proposal=Proposal(max_new_tokens=60), seed=0)
    marks = made.flat_finished()
    assert 0 < sum(marks) < len(marks), "both kinds"
    ids = [ids for row in made.ids for ids in row]
    assert marks == [ends_with_end_token(policy, row) for row in ids]
    assert all(len(row) == 60 for row, ended in zip(ids, marks, strict=True) if not ended)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made = sample_responses(policy, PROMPTS, 2, proposal=Proposal(max_new_tokens=1), seed=0)
    assert not any(made.flat_finished())
    assert "6 of 6 responses were cut off at max_new_tokens = 1" in caplog.text


def test_a_reply_that_ends_in_its_last_token_is_finished(policy: Policy) -> None:
    long = sample_responses(policy, PROMPTS, 8, proposal=Proposal(max_new_tokens=60), seed=0)
    ended = [(len(ids), row, at) for row, all_ids in enumerate(long.ids)
             for at, ids in enumerate(all_ids) if long.finished[row][at]]  # fmt: skip
    length, row, at = max(ended)
    exact = sample_responses(policy, PROMPTS, 8, proposal=Proposal(max_new_tokens=length), seed=0)
    assert len(exact.ids[row][at]) == length
    assert exact.finished[row][at]


def test_a_stop_string_finishes_a_reply(policy: Policy) -> None:
    plain = sample_responses(policy, PROMPTS, 1, proposal=Proposal(max_new_tokens=8), seed=0)
    assert not any(plain.flat_finished())
    stop = plain.texts[0][0][3:5]
    stopped = Proposal(max_new_tokens=8, stop=(stop,))
    made = sample_responses(policy, PROMPTS[:1], 1, proposal=stopped, seed=0)
    assert made.finished == [[True]]
    assert stop not in made.texts[0][0]
    # In the last token that there is room for, too.
    last = Proposal(max_new_tokens=len(made.ids[0][0]), stop=(stop,))
    assert sample_responses(policy, PROMPTS[:1], 1, proposal=last, seed=0).finished == [[True]]


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("unit", ["sentence", "block"])
def test_every_search_marks_what_it_cut_off(policy: Policy, method: MethodName, unit: Any) -> None:
    reward = Marked()
    searcher = search_of(
        policy,
        method,
        4,
        Proposal(unit=unit, segment_tokens=6, max_new_tokens=20),
        reward_model=reward,
        answer_form="number",
    )
    for result in searcher.generate(PROMPTS, seed=1):
        assert result.candidates
        for candidate in result.candidates:
            assert candidate.finished or candidate.tokens == 20
            assert reward.marks[candidate.text] == candidate.finished
        chosen = [c for c in result.candidates if c.text == result.response]
        assert result.response_finished in {c.finished for c in chosen}


def test_rollouts_that_were_cut_off_are_marked(policy: Policy) -> None:
    reward = Marked()
    searcher = search_of(
        policy,
        "muzero",
        4,
        Proposal(unit="block", segment_tokens=4, max_new_tokens=12),
        reward_model=reward,
        leaf_value=Rollout(),
    )
    candidates = [c for r in searcher.generate(PROMPTS, seed=1) for c in r.candidates]
    assert not all(candidate.finished for candidate in candidates)
    assert all(reward.marks[candidate.text] == candidate.finished for candidate in candidates)


def test_a_reward_model_reads_a_cut_reply_without_an_end_token(
    policy: Policy, policy_folder: Path, tmp_path: Path
) -> None:
    scorer = load_reward_model(str(save_classifier(policy_folder, tmp_path / "m", seed=1)))
    made = sample_responses(policy, PROMPTS, 8, proposal=Proposal(max_new_tokens=60), seed=0)
    prompts, texts = made.flat()
    marks = made.flat_finished()
    wanted = torch.stack(
        [
            scorer.score([p], [t], finished=ended)[0]
            for p, t, ended in zip(prompts, texts, marks, strict=True)
        ]
    )
    closed = scorer.score(prompts, texts)
    assert (closed - wanted)[[i for i, ended in enumerate(marks) if not ended]].abs().min() > 1e-4
    torch.testing.assert_close(scorer.score(prompts, texts, finished=marks), wanted, **CLOSE)
    session = scorer.session()
    torch.testing.assert_close(session.score(prompts, texts, finished=marks), wanted, **CLOSE)
    both = EnsembleRewardModel([scorer, scorer])
    torch.testing.assert_close(both.score(prompts, texts, finished=marks), wanted, **CLOSE)
    gold = ModelGoldScorer(scorer)
    scores = gold_scores(gold, prompts, texts, rows=range(len(texts)), finished=marks)
    torch.testing.assert_close(torch.tensor(scores), wanted, **CLOSE)
    lines = pool_lines(made, scorer, gold)
    for key in ("proxy", "gold"):
        found = torch.tensor([score for line in lines for score in line[key]])
        torch.testing.assert_close(found, wanted, **CLOSE)
    searcher = search_of(policy, "best_of_n", 8, Proposal(max_new_tokens=60), reward_model=scorer)
    found = [c for r in searcher.generate(PROMPTS, seed=0) for c in r.candidates]
    assert [c.text for c in found] == texts
    torch.testing.assert_close(torch.tensor([c.score for c in found]), wanted, **CLOSE)


def test_evaluations_keep_the_share_of_finished_answers() -> None:
    made = Samples(
        ["p", "q"], [["a", "bb"], ["ccc", "d"]], [[[1], [1]]] * 2, [[-1.0] * 2] * 2,
        [[True, False], [True, True]],
    )  # fmt: skip
    lines = [{**line, "seconds": 1.0} for line in pool_lines(made, CountingReward(), None)]
    assert [line["finished"] for line in lines] == [[True, False], [True, True]]
    records = pool_records(Pool.of(lines), "best_of_n", counts=[1], seed=0)
    assert [record["response_finished"] for record in records] == [0.5, 1.0]
    (cell,) = summarize(records, seed=0)
    assert cell.finished == 0.75
    old = [
        {key: v for key, v in record.items() if key != "response_finished"} for record in records
    ]
    assert summarize(old, seed=0)[0].finished is None, "records made before"


def test_records_of_searches_keep_it(policy: Policy) -> None:
    searcher = search_of(policy, "gumbel_muzero", 2, Proposal(max_new_tokens=4))
    lines = search_lines(searcher.generate(PROMPTS, seed=0), None)
    assert [line["response_finished"] for line in lines] == [False] * 3
    records = records_of_lines(lines, searcher, method="m", budget="2", seed=0)
    assert summarize(records, seed=0)[0].finished == 0.0


@pytest.mark.parametrize(
    ("form", "cut", "counts"),
    [
        ("gsm8k", "so\n#### 7", False),
        ("gsm8k", "so\n#### 7\nQ: next", True),
        ("boxed", "it is \\boxed{7", False),
        ("boxed", "it is \\boxed{7} as", True),
        ("number", "then 7 plus", False),
        ("auto", "then 7 plus", False),
        ("auto", "the answer is 7. Then", True),
        ("regex:<a>(.)</a>", "<a>7</a> and", True),
        ("regex:is (\\d+)", "is 7", False),
    ],
)
def test_a_cut_reply_votes_with_an_answer_it_had_stated(form: str, cut: str, counts: bool) -> None:
    whole = {"gsm8k": "#### 3", "boxed": "\\boxed{3}", "regex:<a>(.)</a>": "<a>3</a>"}
    texts = [whole.get(form, "the answer is 3"), cut, cut]
    scores, finished = [2.0, 1.0, 0.0], [True, False, False]
    assert choose(texts, scores, rule="majority", form=form, finished=finished) == int(counts)
    assert choose(texts, scores, rule="best", form=form, finished=finished) == 0


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """What `fine_tune` gives the trainer."""
    given: list[Dataset] = []

    class Trainer:
        def __init__(self, *, train_dataset: Dataset, **_: Any) -> None:
            given.append(train_dataset)

    monkeypatch.setattr(language_model, "SFTTrainer", Trainer)
    monkeypatch.setattr(language_model, "run_trainer", lambda trainer: {})
    monkeypatch.setattr(language_model, "save_model", lambda *_, **__: None)
    return given


SHOWN = Dataset.from_dict(
    {
        "prompt": ["Write of rain."] * 4,
        "completion": [" It rained all day.", " It rained and th", " Rain", " Drops"],
        "finished": [True, False, None, False],
    }
)


def test_fine_tuning_teaches_no_end_after_half_a_sentence(
    policy: Policy, policy_folder: Path, tmp_path: Path, learned: list[Dataset]
) -> None:
    counts = fine_tune(str(policy_folder), SHOWN, tmp_path / "m", optimization=OptimConfig())
    assert counts == {"rows": 4, "cut": 0, "unfinished": 2, "left_out": 0}
    ends = [ends_with_end_token(policy, row) for row in learned[0]["labels"]]
    assert ends == [True, False, True, False]
    tokenizer = policy.encoder.tokenizer
    text = tokenizer.decode([i for i in learned[0]["labels"][1] if i >= 0])
    assert text == SHOWN["completion"][1], "the text itself is learned"
    counts = fine_tune(str(policy_folder), SHOWN, tmp_path / "m", optimization=OptimConfig(),
                       unfinished="leave_out")  # fmt: skip
    assert counts == {"rows": 2, "cut": 0, "unfinished": 2, "left_out": 2}
    assert all(ends_with_end_token(policy, row) for row in learned[1]["labels"])
    with pytest.raises(ValueError, match=r"all 1 demonstrations were cut off.*no_end"):
        fine_tune(str(policy_folder), SHOWN.select([1]), tmp_path / "m",
                  optimization=OptimConfig(), unfinished="leave_out")  # fmt: skip
    with pytest.raises(ValueError, match=r"unfinished: found 'maybe'"):
        fine_tune(str(policy_folder), SHOWN, tmp_path / "m", optimization=OptimConfig(),
                  unfinished="maybe")  # type: ignore[arg-type]  # fmt: skip


def test_a_completion_that_fine_tuning_itself_cuts_off_gets_no_end_token(
    policy: Policy, policy_folder: Path, tmp_path: Path, learned: list[Dataset]
) -> None:
    letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    rows = {"prompt": [letters] * 2, "completion": [" Rain.", " rain" * 40]}
    counts = fine_tune(str(policy_folder), Dataset.from_dict(rows), tmp_path / "m",
                       optimization=OptimConfig(max_length=20))  # fmt: skip
    assert counts == {"rows": 2, "cut": 2, "unfinished": 1, "left_out": 0}
    assert [ends_with_end_token(policy, row) for row in learned[0]["labels"]] == [True, False]


def test_searched_demonstrations_keep_it_through_a_file(tmp_path: Path) -> None:
    found = searched_demonstrations(PROMPTS, [" A.", "  ", " B"], [True, True, False])
    path = tmp_path / "searched.jsonl"
    path.write_text(json_lines(found))
    read = load_demonstrations(str(path))
    assert read.to_dict() == {
        "prompt": [PROMPTS[0], PROMPTS[2]], "completion": [" A.", " B"], "finished": [True, False],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "finished"),
    [
        ({"finished": False}, False),
        ({"finished": "true"}, True),
        ({"finished": None}, None),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "stop"}, True),
        ({}, None),
    ],
)
def test_demonstrations_keep_it_in_a_column(
    tmp_path: Path, row: dict[str, Any], finished: bool | None
) -> None:
    path = tmp_path / "shown.jsonl"
    first = {"prompt": "p", "completion": " c"}
    path.write_text(json_lines([first, {**first, **row}]))
    read = load_demonstrations(str(path)).to_dict()
    assert read.get("finished", [None, None]) == [None, finished]


def test_a_column_of_other_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shown.jsonl"
    path.write_text(json.dumps({"prompt": "p", "completion": " c", "finished": "maybe"}) + "\n")
    with pytest.raises(PreferenceDataError, match=r"shown.jsonl:1: column 'finished' holds str"):
        load_demonstrations(str(path))


def test_pairs_of_samples_keep_it_to_the_reward_models_training(
    policy: Policy, tmp_path: Path
) -> None:
    prompt = sample_requests(1, seed=0)[0].prompt
    texts = [[" A crow came.", " The rain and th", " A", " Rain."]]
    made = Samples([prompt], texts, [[[1]] * 4], [[-1.0] * 4], [[True, False, False, True]])
    marks = finished_pairs_of(made)
    assert marks == [(True, False), (False, True)]
    labeled, _ = SimulatedHuman(ties=0.0).label(*pairs_of(made), seed=0, finished=marks)
    known = dict(zip(texts[0], made.finished[0], strict=True))
    path = tmp_path / "preferences.jsonl"
    path.write_text(json_lines(labeled))
    read = load_preferences(str(path))
    assert len(read) == 2
    rows, _ = tokenize_comparisons(read, policy.encoder, LossConfig(), seed=0)
    for row, sequences in zip(read.to_list(), rows["sequences"], strict=True):
        for name, ids in zip(("chosen", "rejected"), sequences, strict=True):
            assert row[f"{name}_finished"] == known[row[name]]
            assert ends_with_end_token(policy, ids) == known[row[name]]
    shown = load_demonstrations(str(path))
    assert shown["finished"] == read["chosen_finished"], "chosen replies as demonstrations"


def test_it_follows_replies_that_change_places(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "p", "chosen": " a", "rejected": " b", "chosen_probability": 0.2,
           "chosen_finished": False, "rejected_finished": True}  # fmt: skip
    path.write_text(json.dumps(row) + "\n")
    (read,) = load_preferences(str(path)).to_list()
    found = (read["chosen"], read["chosen_finished"], read["rejected_finished"])
    assert found == (" b", True, False)


def test_the_states_of_a_cut_reply_are_those_of_its_own_tokens(policy: Policy) -> None:
    proposal = Proposal(unit="block", segment_tokens=1, max_new_tokens=20)
    text = " The rain came"
    count = len(policy.encoder.response_ids(text, finished=False))
    whole, _ = boundary_states(policy, proposal, PROMPTS[:1], [text])
    cut, _ = boundary_states(policy, proposal, PROMPTS[:1], [text], finished=[False])
    assert len(whole) == 1 + count, "the prompt's and every token's but the end token's"
    assert len(cut) == count, "nothing goes on from where a reply was cut off"
    torch.testing.assert_close(whole[:count], cut)


def test_what_a_search_wrote_is_read_as_it_was_searched(
    policy_folder: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = str(save_classifier(policy_folder, tmp_path / "scorer", seed=0))
    found, scored = tmp_path / "plan.jsonl", tmp_path / "scored.jsonl"
    options = ["--policy", str(policy_folder), "--reward_model", scorer, "--dataset", str(data)]
    options += ["--method", "best_of_n", "--budget", "3", "--max_new_tokens", "6"]
    assert main(["policy", "plan", *options, "--out", str(found)]) == 0
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    assert [line["num_candidates"] for line in lines] == [3] * len(PROMPTS)
    assert not all(line["response_finished"] for line in lines)
    assert (
        main(["reward", "score", "--model", scorer, "--dataset", str(found), "--out", str(scored)])
        == 0
    )
    again = [json.loads(line)["score"] for line in scored.read_text().splitlines()]
    assert again == pytest.approx([line["score"] for line in lines], abs=1e-5)
    demonstrations = load_demonstrations(str(found))
    assert demonstrations["finished"] == [line["response_finished"] for line in lines]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"finished": 3, "response_finished": False}, [False, False]),
        ({"finished": [True, None]}, [True, None]),
        ({"finish_reason": "length"}, [False, False]),
        ({"finish_reason": ["stop", "length"]}, [True, False]),
        ({"stop_reason": "max_tokens"}, [False, False]),
        ({"stop_reason": "a new one"}, [None, None]),
        ({"finished": None, "finish_reason": "eos_token"}, [True, True]),
        ({}, [None, None]),
    ],
)
def test_the_first_column_that_holds_it_marks_finished_replies(columns, expected) -> None:
    assert replies_finished(columns, 2) == expected


def test_marks_go_from_scored_responses_to_pairs_and_rankings(tmp_path: Path) -> None:
    row = {"prompt": "p", "responses": ["a", "b", "a"], "scores": [1, 3, 1],
           "finished": [None, False, True]}  # fmt: skip
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (pair,) = load_preferences(path)
    found = (pair["chosen"], pair["chosen_finished"], pair["rejected_finished"])
    assert found == ("b", False, True)
    rankings = load_rankings(path)
    assert rankings[0]["finished"] == [True, False]
    (derived,) = pairs_from_rankings(rankings)
    assert (derived["chosen_finished"], derived["rejected_finished"]) == (False, True)
    ((_, responses, finished, _),) = _ranked_groups(rankings)
    assert dict(zip(responses, finished, strict=True)) == {"a": True, "b": False}


def test_text_that_is_rendered_is_not_closed_where_it_was_cut_off(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer("qwen")
    row = {**row_of(CHAT_PROMPTS[0], chosen="Yes I", rejected="No."), "chosen_finished": False}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (pair,) = load_preferences(path, tokenizer=tokenizer)
    assert (pair["chosen"], pair["rejected"]) == ("Yes I", "No.<|im_end|>\n")
    shown = {**row_of(CHAT_PROMPTS[0], completion="Yes I"), "finish_reason": "length"}
    path.write_text(json.dumps(shown) + "\n")
    assert load_demonstrations(path, tokenizer=tokenizer)[0]["completion"] == "Yes I"


def test_an_end_token_that_is_not_special_is_no_part_of_a_response(tmp_path: Path) -> None:
    policy = Policy.load(write_chat_policy(tmp_path / "policy", "marks-are-no-tokens"))
    end = policy.encoder.text_ids("?")
    policy.end_ids = frozenset(end)
    made = sample_responses(
        policy, CHAT_PROMPTS[:1] * 8, 8, proposal=Proposal(max_new_tokens=200), seed=0
    )
    texts = [text for row in made.texts for text in row]
    ended = [text for text, marks in zip(texts, made.flat_finished(), strict=True) if marks]
    assert ended
    assert not any(text.endswith("?") for text in ended)
