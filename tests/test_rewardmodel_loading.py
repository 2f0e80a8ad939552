import shutil
from pathlib import Path

import pytest
import torch

from rewardmodel.interface import RewardModel, SessionRewardModel
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.ensemble_file import write_ensemble
from rewardmodel.models.functions import FunctionRewardModel
from rewardmodel.models.loading import KINDS, Kind, kind_of, load_reward_model
from rewardmodel.models.multi_head import MultiHeadRewardModel
from rewardmodel.models.process import ProcessRewardModel
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.models.token_value import TokenValueModel
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_adapter, save_classifier


def shortest(prompts: list[str], responses: list[str]) -> list[float]:
    return [-float(len(text)) for text in responses]


@pytest.fixture(scope="module")
def sources(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One reward model of each kind, by its name."""
    root = tmp_path_factory.mktemp("kinds")
    found = {
        "sequence": save_classifier(policy_folder, root / "s", seed=0),
        "multi_head": save_classifier(policy_folder, root / "h", seed=0, labels=2, reward_heads=2),
        "process": save_classifier(policy_folder, root / "p", seed=0, labels=2, tokens=True),
        "adapter": save_adapter(policy_folder, root / "a", seed=0),
        "ensemble": root / "e",
    }
    members = [str(found[name]) for name in ("sequence", "adapter", "process")]
    write_ensemble(root / "e", members, aggregate="min")
    names = {name: str(folder) for name, folder in found.items()}
    return {**names, "function": f"python:{__name__}:shortest"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sequence", SequenceRewardModel),
        ("multi_head", MultiHeadRewardModel),
        ("process", ProcessRewardModel),
        ("adapter", SequenceRewardModel),
        ("ensemble", EnsembleRewardModel),
        ("function", FunctionRewardModel),
    ],
)
def test_what_lies_there_is_loaded_as_what_it_is(
    sources: dict[str, str], name: str, kind: type
) -> None:
    model = load_reward_model(sources[name])
    assert type(model) is kind
    assert isinstance(model, RewardModel)
    scores = model.score([PROMPT] * 4, TEXTS)
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    asked = "sequence" if name == "adapter" else name
    assert kind_of(sources[name]) == asked
    again = load_reward_model(sources[name], kind=asked).score([PROMPT] * 4, TEXTS)  # type: ignore[arg-type]
    torch.testing.assert_close(again, scores, atol=0, rtol=0)


def test_options_reach_the_model(sources: dict[str, str]) -> None:
    model = load_reward_model(sources["sequence"], max_length=40, batch_size=3)
    assert (model.encoder.max_length, model.batch_size) == (40, 3)
    assert load_reward_model(sources["ensemble"]).aggregate == "min"
    assert load_reward_model(sources["ensemble"], aggregate="mean").aggregate == "mean"
    assert load_reward_model(sources["process"], aggregate="product").aggregate == "product"
    members = load_reward_model(sources["ensemble"], max_length=40).members
    assert [member.encoder.max_length for member in members] == [40] * 3


def test_token_values_are_loaded_by_their_kind(sources: dict[str, str]) -> None:
    model = load_reward_model(sources["sequence"], kind="token_value")
    assert isinstance(model, TokenValueModel)
    assert isinstance(model, SessionRewardModel)
    scores = load_reward_model(sources["sequence"]).score([PROMPT] * 4, TEXTS)
    session = model.session()
    torch.testing.assert_close(session.score([PROMPT] * 4, TEXTS), scores, **CLOSE)
    assert session.forward_tokens > 0
    cut = model.score([PROMPT], TEXTS[:1], finished=False)
    torch.testing.assert_close(cut, model.token_values([PROMPT], TEXTS[:1])[0][-2:-1], **CLOSE)
    with pytest.raises(ValueError, match="row 1: the unfinished response has no tokens"):
        model.score([PROMPT] * 2, [TEXTS[0], ""], finished=False)
    with pytest.raises(ValueError, match="input_format: found 'pair'"):
        load_reward_model(sources["sequence"], kind="token_value", input_format="pair")


def test_where_no_reward_model_lies_the_kinds_are_listed(
    sources: dict[str, str], policy_folder: Path, tmp_path: Path
) -> None:
    listed = r"required: a classifier of sequences .*process.*ensemble.*python:package"
    with pytest.raises(ValueError, match=rf"found LlamaForCausalLM; {listed}"):
        load_reward_model(str(policy_folder))
    with pytest.raises(ValueError, match=rf"found nothing; {listed}"):
        load_reward_model(str(tmp_path))
    folder = tmp_path / "adapter"
    shutil.copytree(sources["adapter"], folder)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace("SEQ_CLS", "CAUSAL_LM"))
    with pytest.raises(ValueError, match=rf"found an adapter for CAUSAL_LM; {listed}"):
        load_reward_model(str(folder))
    with pytest.raises(ValueError, match=f"kind: found 'best'; required: one of {KINDS[0]}"):
        load_reward_model(str(tmp_path), kind="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no config\.json at '/nowhere/at/all'"):
        load_reward_model("/nowhere/at/all")


@pytest.mark.parametrize(
    ("name", "aggregate", "message"),
    [
        ("sequence", "mean", "found 'mean' for a sequence model; required: none"),
        ("process", "mean_minus_std", "for a process model; required: one of min, product"),
        ("ensemble", "product", "for a ensemble model; required: one of mean, min, mean_minus_std"),
    ],
)
def test_an_aggregate_of_another_kind_is_refused(
    sources: dict[str, str], name: str, aggregate: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_reward_model(sources[name], aggregate=aggregate)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sequence", "process"),
        ("sequence", "function"),
        ("sequence", "ensemble"),
        ("process", "sequence"),
        ("ensemble", "sequence"),
        ("function", "process"),
    ],
)
def test_another_kind_than_it_is_is_answered_with_the_kind_that_it_is(
    sources: dict[str, str], name: str, kind: Kind
) -> None:
    message = rf"kind: found '{kind}', and .* is a {name} model .*Pass kind='{name}', or kind='auto"
    with pytest.raises(ValueError, match=message):
        load_reward_model(sources[name], kind=kind)


def test_a_broken_member_is_named(sources: dict[str, str], tmp_path: Path) -> None:
    write_ensemble(tmp_path / "e", [sources["sequence"], str(tmp_path / "gone")])
    with pytest.raises(ValueError, match="gone"):
        load_reward_model(str(tmp_path / "e"))


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_half_a_file_of_weights_is_named(
    sources: dict[str, str], tmp_path: Path, left: float
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(sources["sequence"], broken)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(ValueError, match=r"could be loaded from .*broken'.*SafetensorError"):
        load_reward_model(str(broken))
