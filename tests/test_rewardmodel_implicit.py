from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardmodel.interface import SessionRewardModel
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.loading import kind_of, load_members, load_reward_model
from rewardmodel.pretrained.digest import digest_model
from rewardmodel.pretrained.paths import places_of
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_classifier

PROMPTS = [PROMPT, "How?\n", PROMPT, "How?\n"]


@pytest.fixture(scope="module")
def tuned(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy with other weights, as after training."""
    folder = tmp_path_factory.mktemp("tuned") / "m"
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(policy_folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the policy."""
    folder = tmp_path_factory.mktemp("adapter") / "m"
    torch.manual_seed(2)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(policy_folder), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(policy_folder).save_pretrained(folder)
    return folder


def log_probabilities(folder: Path, prompt: str, response: str, *, finished: bool) -> Tensor:
    """Of a response's tokens, by a plain run over the whole text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    start = [tokenizer.bos_token_id] if tokenizer("")["input_ids"] else []
    first = start + tokenizer(prompt, add_special_tokens=False)["input_ids"]
    second = tokenizer(response, add_special_tokens=False)["input_ids"]
    second += [tokenizer.eos_token_id] if finished else []
    with torch.inference_mode():
        said = model(input_ids=torch.tensor([first + second])).logits[0].log_softmax(-1)
    places = range(len(first), len(first) + len(second))
    return torch.stack(
        [said[p - 1, t] for p, t in zip(places, second, strict=True)] or [said.new_zeros(())]
    )


@pytest.mark.parametrize("finished", [True, False])
def test_a_token_earns_its_log_ratio(policy_folder: Path, tuned: Path, finished: bool) -> None:
    texts = TEXTS if finished else TEXTS[:3]  # an empty unfinished response has no tokens
    model = ImplicitRewardModel.load(
        str(tuned), reference=str(policy_folder), beta=0.3, batch_size=3
    )
    found = model.token_scores(PROMPTS[: len(texts)], texts, finished=finished)
    expected = [
        0.3
        * (
            log_probabilities(tuned, prompt, text, finished=finished)
            - log_probabilities(policy_folder, prompt, text, finished=finished)
        )
        for prompt, text in zip(PROMPTS, texts, strict=False)
    ]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    scores = model.score(PROMPTS[: len(texts)], texts, finished=finished)
    torch.testing.assert_close(scores, torch.stack([row.sum() for row in expected]), **CLOSE)


def test_length_and_reference_may_be_left_out(tuned: Path) -> None:
    model = ImplicitRewardModel.load(str(tuned), reference=None, beta=2.0, length_normalized=True)
    expected = [
        2 * log_probabilities(tuned, prompt, text, finished=True).mean()
        for prompt, text in zip(PROMPTS, TEXTS, strict=True)
    ]
    torch.testing.assert_close(model.score(PROMPTS, TEXTS), torch.stack(expected), **CLOSE)


def test_an_adapter_is_held_against_its_base(policy_folder: Path, adapter: Path) -> None:
    model = ImplicitRewardModel.load(str(adapter), beta=1.0)
    merged = AutoModelForCausalLM.from_pretrained(policy_folder)
    other = ImplicitRewardModel(model.policy, merged, model.encoder, beta=1.0)
    found = model.score(PROMPTS, TEXTS)
    torch.testing.assert_close(found, other.score(PROMPTS, TEXTS), **CLOSE)
    assert found.abs().max() > 0.1
    torch.testing.assert_close(model.score(PROMPTS, TEXTS), found, **CLOSE)  # back in place


def test_a_session_counts_what_both_models_read(policy_folder: Path, tuned: Path) -> None:
    model = ImplicitRewardModel.load(str(tuned), reference=str(policy_folder))
    assert isinstance(model, SessionRewardModel)
    session = model.session()
    torch.testing.assert_close(
        session.score(PROMPTS[:1], TEXTS[:1]), model.score(PROMPTS[:1], TEXTS[:1]), **CLOSE
    )
    assert session.forward_tokens == 2 * len(model.encoder.joined(PROMPT, TEXTS[0]))


def test_policy_and_reference_are_loaded_by_one_name(
    policy_folder: Path, tuned: Path, adapter: Path
) -> None:
    both = f"implicit:{tuned},{policy_folder}"
    for name, policy, options in (
        (both, tuned, {"reference": str(policy_folder)}),
        (f"implicit:{adapter}", adapter, {}),
    ):
        expected = ImplicitRewardModel.load(str(policy), **options).score(PROMPTS, TEXTS)
        model = load_reward_model(name, batch_size=2)
        torch.testing.assert_close(model.score(PROMPTS, TEXTS), expected, **CLOSE)
    assert kind_of(both) == "implicit"
    assert isinstance(load_reward_model(str(adapter), kind="implicit"), ImplicitRewardModel)
    mean = load_reward_model(both, aggregate="mean")
    assert isinstance(mean, ImplicitRewardModel)
    assert mean.length_normalized
    assert set(places_of(both)) == {tuned.resolve(), policy_folder.resolve()}
    assert digest_model(both) not in (None, digest_model(f"implicit:{tuned}"))
    assert len(load_members([f"implicit:{adapter}", both], input_format="auto")) == 2
    for wrong in ("implicit:", f"{both},{tuned}", f"implicit:{tuned},"):
        with pytest.raises(ValueError, match="required: implicit:POLICY,REFERENCE"):
            load_reward_model(wrong)
    with pytest.raises(ValueError, match="is no adapter whose base could be the reference"):
        load_reward_model(f"implicit:{tuned}")
    with pytest.raises(ValueError, match="aggregate: found 'min' for a implicit model"):
        load_reward_model(both, aggregate="min")
    with pytest.raises(ValueError, match="is a implicit model"):
        load_reward_model(both, kind="sequence")


def test_what_makes_no_ratio_is_refused(policy_folder: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no adapter whose base could be the reference"):
        ImplicitRewardModel.load(str(tuned))
    words = tmp_path / "words"
    model = AutoModelForCausalLM.from_pretrained(policy_folder)
    tokenizer = AutoTokenizer.from_pretrained(policy_folder)
    tokenizer.add_tokens(["<|new|>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(words)
    tokenizer.save_pretrained(words)
    with pytest.raises(
        ValueError, match=r"has a vocabulary of \d+ tokens that is not the policy's"
    ):
        ImplicitRewardModel.load(str(tuned), reference=str(words))
    with pytest.raises(ValueError, match="beta: found 0; required: more than 0"):
        ImplicitRewardModel.load(str(tuned), reference=None, beta=0)
    with pytest.raises(ValueError, match="no causal language model could be loaded"):
        ImplicitRewardModel.load(str(tuned), reference=str(tmp_path))
    reward = save_classifier(tuned, tmp_path / "reward", seed=0)
    loaded = ImplicitRewardModel.load(str(tuned), reference=None)
    assert reward.is_dir()
    with torch.no_grad():
        loaded.policy.get_input_embeddings().weight.fill_(torch.nan)
    for call in (loaded.score, loaded.token_scores, loaded.session().score):
        with pytest.raises(ValueError, match="scored row 0 as nan"):
            call(PROMPTS, TEXTS)
