"""Texts that no tokenizer takes are errors that name the row, whatever is asked to read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from policies.finetuning.samples import sample_responses
from policies.generation.language_model import Policy
from policies.generation.proposals import Proposal
from policies.generation.segment_tree import SegmentTree
from policies.planning.leaf_values import PartialReward
from policies.planning.searcher import SearchPolicy
from rewardmodel.data.conversation import Conversation
from rewardmodel.data.text_rows import require_rows
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.process import ProcessRewardModel
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.models.verifiers import AnswerMatch, ExactMatch
from search import GumbelMuZeroPlanner
from tests.fakes import CountingReward
from tests.reward_folders import save_classifier

BAD = "a \ud800 b"
LATER = Proposal(max_new_tokens=4)


@pytest.fixture(scope="module")
def models(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    plain = save_classifier(policy_folder, folder / "plain", seed=0)
    steps = save_classifier(policy_folder, folder / "steps", seed=0, labels=2, tokens=True)
    sequence = SequenceRewardModel.load(str(plain))
    causal = AutoModelForCausalLM.from_pretrained(policy_folder)
    return {
        "sequence": sequence,
        "session": sequence.session(),
        "ensemble": EnsembleRewardModel([sequence, sequence]),
        "process": ProcessRewardModel.load(str(steps)),
        "implicit": ImplicitRewardModel(causal, causal, sequence.encoder),
        "function": FunctionRewardModel(lambda prompts, responses: [0.0] * len(prompts)),
        "values": TokenValueModel(sequence.model, sequence.encoder),
        "answers": AnswerMatch({"fine": "1"}),
        "exact": ExactMatch({"fine": "1"}),
    }


KINDS = ("sequence", "session", "ensemble", "process", "implicit", "function", "values", "answers",
         "exact")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_score_names_the_row_of_a_text_that_no_tokenizer_takes(
    kind: str, models: dict[str, Any]
) -> None:
    score = models[kind].score
    with pytest.raises(ValueError, match=r"row 1[:,] .*lone surrogate, '\\ud800', at character 3"):
        score(["fine", BAD], ["1", "1"])
    with pytest.raises(ValueError, match=r"row 1[:,] .*lone surrogate"):
        score(["fine", "fine"], ["1", BAD])


def test_rows_that_are_no_text_are_named() -> None:
    with pytest.raises(ValueError, match=r"row 1: the prompt is list .*required: text, or .*Conv"):
        require_rows(["a", [{"role": "user", "content": "a"}]], ["b", "c"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"row 0: the response is NoneType"):
        require_rows(["a"], [None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="found 1 prompts and 0 responses"):
        require_rows(["a"], [])
    deep = Conversation(({"role": "user", "content": "a"},), tools=({"name": BAD},))
    with pytest.raises(ValueError, match=r"row 0, the prompt: 'tools'\[0\]\['name'\] holds a lone"):
        require_rows([deep])
    require_rows(["a\0"], ["a model of bytes may write \0"])


def _sample(policy: Policy, prompts: list[str]) -> Any:
    return sample_responses(policy, prompts, 1, proposal=LATER, seed=0, batch_size=1)


def _ask(policy: Policy, prompts: list[str]) -> Any:
    return SegmentTree(policy, LATER, seed=0).add_prompts(prompts)


def _search(policy: Policy, prompts: list[str]) -> Any:
    planner = GumbelMuZeroPlanner(2)
    reward = CountingReward()
    found = SearchPolicy(policy, reward, PartialReward(), planner, LATER, 2, batch_size=1)
    return found.generate(prompts, seed=0)


@pytest.mark.parametrize("answer", [_sample, _ask, _search])
def test_policies_name_the_row_of_a_prompt_that_no_tokenizer_takes(
    answer: Callable[..., Any], policy: Policy
) -> None:
    with pytest.raises(ValueError, match=r"row 2, the prompt: the text holds a lone surrogate"):
        answer(policy, ["Write a short story.\n", "fine", BAD])


def test_encoder_refuses_the_text_by_itself(models: dict[str, Any]) -> None:
    encoder = models["sequence"].encoder
    for read in (encoder.text_ids, encoder.prompt_ids, encoder.response_ids):
        with pytest.raises(ValueError, match="lone surrogate"):
            read(BAD)
