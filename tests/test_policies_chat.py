"""Messages stay messages until policy and reward model render them, each with its own template."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from policies.evaluation.gold_scorer import gold_scores
from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy, fine_tune
from policies.generation.proposals import Proposal
from policies.planning.leaf_values import PartialReward
from policies.planning.methods import build_searcher
from prefsearch.cli.entry import main
from rewardmodel.data.conversation import Conversation, prompt_of, row_of
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.loading import load_reward_model
from rewardmodel.training.optim_config import OptimConfig
from tests.chat_models import PROMPTS, template_ids, write_chat_policy, write_chat_scorer

REPLY = "It is 3."


@torch.inference_mode()
def own_score(source: str, prompt: Conversation, reply: str, *, finished: bool = True) -> float:
    """The score of a reply as transformers reads it by the reward model's own template.

    Of a reply that was cut off, the template's text is read without what closes the turn.
    """
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = template_ids(tokenizer, prompt, reply)
    if not finished:
        text = tokenizer.decode(ids)
        closing = next(end for end in ("<end_of_turn>\n", "<|im_end|>\n") if text.endswith(end))
        ids = ids[: -len(tokenizer(closing, add_special_tokens=False)["input_ids"])]
    return model(input_ids=torch.tensor([ids])).logits.item()


def write_prompts(path: Path) -> str:
    """Writes PROMPTS as rows of messages."""
    path.write_text("".join(json.dumps(prompt.columns()) + "\n" for prompt in PROMPTS))
    return str(path)


def message_judge(prompts, responses):
    """A judge of the user's, which is given lists of messages and plain replies."""
    assert all(prompt[0]["role"] == "user" for prompt in prompts)
    return [float(len(response)) for response in responses]


def lines_of(path: Path) -> list[dict]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("shape", ["qwen", "zephyr", "mistral", "marks-are-no-tokens"])
def test_a_fine_tuned_policy_ends_its_turn_and_its_reply_is_bare(shape, tmp_path):
    base = write_chat_policy(tmp_path / "base", shape)
    rows = Dataset.from_list([row_of(PROMPTS[0], completion=REPLY)] * 8)
    fine_tune(
        base,
        rows,
        tmp_path / "policy",
        optimization=OptimConfig(
            epochs=25, batch_size=8, learning_rate=2e-2, weight_decay=0.0, warmup_ratio=0.0
        ),
    )
    policy = Policy.load(str(tmp_path / "policy"))
    proposal = Proposal(unit="response", segment_tokens=40, max_new_tokens=40, temperature=0.2)
    samples = sample_responses(policy, [PROMPTS[0]], 2, proposal=proposal, seed=0)
    assert samples.texts == [[REPLY, REPLY]]
    assert all(len(ids) < 40 for ids in samples.ids[0])


@pytest.mark.parametrize(
    ("policy", "judge", "method"),
    [("qwen", "gemma", "gumbel_muzero"), ("mistral", "qwen-instruct", "best_of_n")],
)
def test_a_plan_is_scored_by_the_reward_models_own_template(policy, judge, method, tmp_path):
    reward_model = load_reward_model(write_chat_scorer(tmp_path / "reward", judge))
    searcher = build_searcher(
        method,
        4,
        policy=Policy.load(write_chat_policy(tmp_path / "policy", policy)),
        reward_model=reward_model,
        leaf_value=PartialReward(),
        proposal=Proposal(unit="block", segment_tokens=4, max_new_tokens=8),
    )
    for result in searcher.generate(PROMPTS, seed=0):
        expected = own_score(
            str(tmp_path / "reward"),
            result.prompt,
            result.response,
            finished=result.response_finished,
        )
        assert result.score == pytest.approx(expected, abs=1e-4)


def test_commands_keep_messages_from_prompt_to_record(tmp_path):
    policy = write_chat_policy(tmp_path / "policy", "qwen")
    judge = write_chat_scorer(tmp_path / "reward", "gemma")
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    shared = ["--policy", policy, "--dataset", prompts, "--max_new_tokens", "6"]
    planned = tmp_path / "planned.jsonl"
    search = ["--reward_model", judge, "--method", "best_of_n", "--budget", "2"]
    assert main(["policy", "plan", *shared, *search, "--out", str(planned)]) == 0
    rows = lines_of(planned)
    assert [row["prompt"] for row in rows] == [list(prompt.messages) for prompt in PROMPTS]
    for row in rows:
        prompt = prompt_of(row)
        assert isinstance(prompt, Conversation)
        expected = own_score(judge, prompt, row["response"], finished=row["response_finished"])
        assert row["score"] == pytest.approx(expected, abs=1e-4)

    samples = tmp_path / "samples.jsonl"
    assert main(["policy", "sample", *shared, "--per_prompt", "4", "--out", str(samples)]) == 0
    assert lines_of(samples)[2]["prompt"] == list(PROMPTS[2].messages)
    scored = tmp_path / "scored.jsonl"
    score = ["reward", "score", "--model", judge, "--dataset", str(samples), "--out", str(scored)]
    assert main(score) == 0
    row = lines_of(scored)[0]
    expected = [
        own_score(judge, PROMPTS[0], text, finished=finished)
        for text, finished in zip(row["responses"], row["finished"], strict=True)
    ]
    assert row["scores"] == pytest.approx(expected, abs=1e-4)

    measured = tmp_path / "measured"
    several = ["--methods", "gumbel_muzero", "--budgets", "2", "--pool", "2"]
    judged_by = ["--gold", "tests.test_policies_chat:message_judge"]
    evaluate = ["policy", "evaluate", *shared, "--reward_model", judge, *several, *judged_by]
    assert main([*evaluate, "--out", str(measured)]) == 0
    kept = json.loads((measured / "data" / "prompts.json").read_text())
    assert kept == [list(prompt.messages) for prompt in PROMPTS]
    assert main([*evaluate, "--out", str(measured), "--resume", "true"]) == 0

    value = ["policy", "value", *shared, "--reward_model", judge, "--per_prompt", "6"]
    assert main([*value, "--out", str(tmp_path / "value")]) == 0
    tune = ["policy", "finetune", *shared, *search, "--epochs", "1"]
    tune += ["--out", str(tmp_path / "tuned")]
    assert main(tune) == 0
    found = lines_of(tmp_path / "tuned" / "searched.jsonl")
    assert found[0]["prompt"] == list(PROMPTS[0].messages)
    assert found[0]["completion"][0]["role"] == "assistant"
    assert main([*tune, "--resume", "true"]) == 0


def test_functions_and_judges_are_given_messages_and_the_plain_reply():
    given = {}

    def ours(prompts, responses):
        given["ours"] = (prompts, responses)
        return [1.0] * len(responses)

    def trl(prompts, completions, **_):
        given["trl"] = (prompts, completions)
        return [float(len(reply[0]["content"])) for reply in completions]

    messages = list(PROMPTS[0].messages)
    FunctionRewardModel(ours).score([PROMPTS[0]], [REPLY])
    assert given["ours"] == ([messages], [REPLY])
    assert FunctionRewardModel(trl).score([PROMPTS[0]], [REPLY]).tolist() == [len(REPLY)]
    assert given["trl"] == ([messages], [[{"role": "assistant", "content": REPLY}]])
    assert gold_scores(ours, [PROMPTS[0]], [REPLY], rows=[0]) == [1.0]
    assert given["ours"] == ([messages], [REPLY])
