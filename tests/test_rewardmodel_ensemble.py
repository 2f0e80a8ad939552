import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rewardmodel.data.text_rows import pair_rows
from rewardmodel.interface import ScoringSession, SessionRewardModel, UncertainRewardModel
from rewardmodel.models import ensemble_file
from rewardmodel.models.adapter_members import AdapterMember, load_adapter_members
from rewardmodel.models.aggregation import combine
from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble import EnsembleRewardModel
from rewardmodel.models.ensemble_file import read_ensemble, write_ensemble
from rewardmodel.models.loading import load_members, load_reward_model
from rewardmodel.models.multi_head import MultiHeadRewardModel
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer
from rewardmodel.prefix_cache.sessions import PrefixSession
from rewardmodel.training.loss_config import LossConfig
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.fakes import CountingReward
from tests.reward_folders import CLOSE, PROMPT, TEXTS, save_adapter, save_classifier

PROMPTS = [PROMPT, PROMPT, PROMPT, "How?\n"]


@pytest.fixture(scope="module")
def folders(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three untrained reward models that differ in weights."""
    root = tmp_path_factory.mktemp("members")
    return [save_classifier(policy_folder, root / f"m{i}", seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def heads(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three untrained reward heads on one backbone."""
    folder = tmp_path_factory.mktemp("heads") / "m"
    return save_classifier(policy_folder, folder, seed=3, labels=3, reward_heads=3)


@pytest.fixture(scope="module")
def adapters(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters on one base."""
    root = tmp_path_factory.mktemp("adapters")
    return [save_adapter(policy_folder, root / f"a{i}", seed=i) for i in range(2)]


def test_scores_are_combined_as_the_names_say() -> None:
    scores = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    expected = {
        "mean": [2.0, 5.0],
        "min": [1.0, 5.0],
        "mean_minus_std": [2 - 0.5 * 1, 5.0],
        "mean_minus_variance": [2 - 0.5 * 1, 5.0],
    }
    for aggregate, values in expected.items():
        found = combine(scores, aggregate, weight=0.5)  # type: ignore[arg-type]
        assert found.tolist() == values, aggregate
    wide = combine(2 * scores, "mean_minus_variance", weight=0.5)
    assert wide.tolist() == [4 - 0.5 * 4, 10.0]
    with pytest.raises(ValueError, match="aggregate: found 'median'; required: one of mean, min"):
        combine(scores, "median")  # type: ignore[arg-type]


def test_an_ensemble_asks_each_member(folders: list[Path]) -> None:
    members = [SequenceRewardModel.load(str(folder)) for folder in folders]
    alone = torch.stack([member.score(PROMPTS, TEXTS) for member in members])
    assert (alone.std(0) > 0.1).all(), "members that agree test nothing"
    ensemble = EnsembleRewardModel(members, "min")
    assert isinstance(ensemble, UncertainRewardModel)
    torch.testing.assert_close(ensemble.member_scores(PROMPTS, TEXTS), alone, **CLOSE)
    torch.testing.assert_close(ensemble.score(PROMPTS, TEXTS), alone.amin(0), **CLOSE)


def test_a_session_of_an_ensemble_is_a_session_of_each_member(folders: list[Path]) -> None:
    members = [SequenceRewardModel.load(str(folder)) for folder in folders[:2]]
    ensemble = EnsembleRewardModel(members, "mean_minus_std", weight=2.0)
    assert isinstance(ensemble, SessionRewardModel)
    session = ensemble.session()
    for finished in (True, False):
        found = session.score(PROMPTS, TEXTS, finished=finished)
        alone = torch.stack([m.score(PROMPTS, TEXTS, finished=finished) for m in members])
        expected = alone.mean(0) - 2 * alone.std(0, correction=0)
        torch.testing.assert_close(found, expected, **CLOSE)
    tokens = session.forward_tokens
    assert tokens > 0
    session.keep([])
    session.score(PROMPTS, TEXTS)
    assert session.forward_tokens > tokens


def test_members_without_sessions_are_asked_about_finished_text_alone(folders: list[Path]) -> None:
    plain = CountingReward()
    model = SequenceRewardModel.load(str(folders[0]))
    session = EnsembleRewardModel([model, plain]).session()
    expected = (model.score(PROMPTS, TEXTS) + plain.score(PROMPTS, TEXTS)) / 2
    torch.testing.assert_close(session.score(PROMPTS, TEXTS), expected, **CLOSE)
    with pytest.raises(ValueError, match="CountingReward cannot score unfinished text"):
        session.score(PROMPTS, TEXTS, finished=False)


def test_a_saved_ensemble_is_the_same_wherever_it_is_moved(
    folders: list[Path], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for folder in folders[:2]:
        (root / folder.name).symlink_to(folder)
    sources = [str(root / folder.name) for folder in folders[:2]]
    write_ensemble(root / "both", sources, aggregate="min", shifts=[1.0, 0.0], scales=[2.0, 1.0])
    assert read_ensemble(root / "both" / "ensemble.json")["members"] == ["../m0", "../m1"]
    moved = root.rename(tmp_path / "moved")
    ensemble = load_reward_model(moved / "both")
    alone = [SequenceRewardModel.load(str(folder)).score(PROMPTS, TEXTS) for folder in folders[:2]]
    expected = torch.stack([(alone[0] - 1) / 2, alone[1]])
    torch.testing.assert_close(ensemble.member_scores(PROMPTS, TEXTS), expected, **CLOSE)
    torch.testing.assert_close(ensemble.score(PROMPTS, TEXTS), expected.amin(0), **CLOSE)
    mean = load_reward_model(moved / "both", aggregate="mean")
    torch.testing.assert_close(mean.score(PROMPTS, TEXTS), expected.mean(0), **CLOSE)


def test_members_that_are_files_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    Path("right.jsonl").write_text(json.dumps({"prompt": "p", "answer": "7"}) + "\n")
    Path("wrong.jsonl").write_text(json.dumps({"prompt": "p", "answer": "8"}) + "\n")
    write_ensemble("inner", ["answers:wrong.jsonl"])
    path = write_ensemble("all", ["answers:right.jsonl", "inner"])
    assert read_ensemble(path)["members"] == ["answers:../right.jsonl", "../inner"]
    elsewhere = ["simulated", "package:p/m", "who/model", "gone.gguf"]
    assert read_ensemble(write_ensemble("no-files", elsewhere))["members"] == elsewhere
    monkeypatch.chdir(tmp_path)
    root.rename(tmp_path / "moved")
    scores = load_reward_model("moved/all").member_scores(["p"], ["7"])
    assert scores.flatten().tolist() == [1, 0]


def test_a_gguf_member_is_kept_relative_to_the_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reward.gguf").write_bytes(b"GGUF")
    path = write_ensemble("one", ["reward.gguf"])
    assert read_ensemble(path)["members"] == ["../reward.gguf"]
    loaded: list[str] = []
    monkeypatch.setattr(
        "rewardmodel.models.loading.load_members", lambda names, **_: loaded.extend(names) or []
    )
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match="members: found none"):
        load_reward_model(tmp_path / path.parent)
    assert loaded == [str(tmp_path.resolve() / "reward.gguf")]


def test_standardized_members_have_one_scale(folders: list[Path]) -> None:
    members = [SequenceRewardModel.load(str(folder)) for folder in folders[:2]]
    made = EnsembleRewardModel(members).standardize(PROMPTS, TEXTS)
    scores = made.member_scores(PROMPTS, TEXTS)
    torch.testing.assert_close(scores.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(1), torch.ones(2), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="member 0 gives all 2 responses the same score"):
        EnsembleRewardModel(members).standardize([PROMPT] * 2, [TEXTS[0]] * 2)
    with pytest.raises(ValueError, match="found 1 responses to standardize on"):
        EnsembleRewardModel(members).standardize([PROMPT], TEXTS[:1])


class _Broken:
    def score(self, prompts: list[str], responses: list[str]) -> Tensor:
        return torch.tensor([0.0] * (len(responses) - 1) + [torch.nan])


def test_wrong_ensembles_are_named(tmp_path: Path) -> None:
    model = CountingReward()
    with pytest.raises(ValueError, match="members: found none"):
        EnsembleRewardModel([])
    with pytest.raises(ValueError, match="shifts: found 2 for 1 members"):
        EnsembleRewardModel([model], shifts=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"scales: found 0.0; required: positive"):
        EnsembleRewardModel([model], scales=[0.0])
    with pytest.raises(ValueError, match="member 1 of the ensemble scored row 2 as nan"):
        EnsembleRewardModel([model, _Broken()]).score([""] * 3, ["a", "b", "c"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"ensemble.json does not exist"):
        load_reward_model(tmp_path, kind="ensemble")
    (tmp_path / "ensemble.json").write_text('{"members": []}')
    with pytest.raises(ValueError, match=r"ensemble.json: found members \[\]"):
        load_reward_model(tmp_path, kind="ensemble")
    (tmp_path / "ensemble.json").write_text("{")
    with pytest.raises(ValueError, match=r"ensemble.json:1: not JSON"):
        load_reward_model(tmp_path, kind="ensemble")
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": ["."]}))
    with pytest.raises(ValueError, match="names itself as a member"):
        load_reward_model(tmp_path, kind="ensemble")


# ------------------------------------------------------------------------------------ several heads


def test_heads_share_a_prompt_and_score_as_plain_runs(heads: Path) -> None:
    model = MultiHeadRewardModel.load(str(heads), aggregate="min")
    assert isinstance(model, UncertainRewardModel)
    plain = AutoModelForSequenceClassification.from_pretrained(heads).eval()
    rows = [model.encoder.joined(p, t) for p, t in zip(PROMPTS, TEXTS, strict=True)]
    with torch.inference_mode():
        expected = torch.cat([plain(input_ids=torch.tensor([row])).logits for row in rows]).T
    assert expected.shape == (3, 4)
    torch.testing.assert_close(model.member_scores(PROMPTS, TEXTS), expected, **CLOSE)
    torch.testing.assert_close(model.score(PROMPTS, TEXTS), expected.amin(0), **CLOSE)
    session = model.session()
    assert isinstance(session, PrefixSession)
    torch.testing.assert_close(session.score(PROMPTS, TEXTS), expected.amin(0), **CLOSE)
    pairs = pair_rows(model.encoder, [PROMPT] * 4, TEXTS, finished=True)
    together = model._output_pairs(pairs)[1]
    assert together < 0.7 * model._score_alone(pairs)[1], "a prompt is run once"


def test_each_head_has_its_own_shift(policy_folder: Path, heads: Path, tmp_path: Path) -> None:
    folder = save_classifier(policy_folder, tmp_path / "m", seed=3, labels=3, reward_heads=3,
                             reward_shift=[1.0, 2.0, 3.0])  # fmt: skip
    expected = MultiHeadRewardModel.load(str(heads)).member_scores(PROMPTS, TEXTS)
    shifted = MultiHeadRewardModel.load(str(folder), aggregate="mean")
    found = shifted.member_scores(PROMPTS, TEXTS)
    torch.testing.assert_close(found, expected - torch.tensor([[1.0], [2.0], [3.0]]), **CLOSE)
    torch.testing.assert_close(shifted.score(PROMPTS, TEXTS), expected.mean(0) - 2, **CLOSE)


def test_heads_and_labels_are_told_apart(
    policy_folder: Path, heads: Path, folders: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is 3 reward models on one backbone; required: one"):
        load_scorer(str(heads), init_head=False)
    classes = save_classifier(policy_folder, tmp_path / "m", seed=0, labels=3)
    with pytest.raises(ValueError, match="has 3 labels; required: 1"):
        SequenceRewardModel.load(str(classes))
    with pytest.raises(ValueError, match=r"does not say in config.json how many reward heads"):
        MultiHeadRewardModel.load(str(classes))
    with torch.no_grad():
        model = MultiHeadRewardModel.load(str(heads))
        model.model.score.weight[1].fill_(torch.nan)
    for call in (model.score, model.member_scores, model.session().score):
        with pytest.raises(ValueError, match="scored row 0 as nan"):
            call(PROMPTS, TEXTS)
    with torch.no_grad():  # an infinite head is not hidden by the minimum of the others
        model.aggregate = "min"
        model.model.score.weight[1] = 0
        model.model.score.register_forward_hook(lambda *a: a[2] + torch.tensor([0, torch.inf, 0]))
    for call in (model.score, model.member_scores, model.session().score):
        with pytest.raises(ValueError, match=r"scored row 0 as (nan|inf)"):
            call(PROMPTS, TEXTS)


# ---------------------------------------------------------------------------------------- adapters


def test_adapters_on_one_base_score_as_each_alone(adapters: list[Path]) -> None:
    sources = [str(folder) for folder in adapters]
    alone = [SequenceRewardModel.load(source).score(PROMPTS, TEXTS) for source in sources]
    assert not torch.allclose(alone[0], alone[1], atol=0.1)
    members = load_adapter_members(sources)
    for _ in range(2):  # they take turns
        for member, expected in zip(members, alone, strict=True):
            torch.testing.assert_close(member.score(PROMPTS, TEXTS), expected, **CLOSE)
    sessions: list[ScoringSession] = [member.session() for member in members]
    for session, expected in zip([*sessions, *sessions], [*alone, *alone], strict=True):
        torch.testing.assert_close(session.score(PROMPTS, TEXTS), expected, **CLOSE)


def test_an_ensemble_of_adapters_loads_its_base_once(adapters: list[Path], tmp_path: Path) -> None:
    sources = [str(folder) for folder in adapters]
    write_ensemble(tmp_path / "e", sources, aggregate="mean")
    ensemble = load_reward_model(tmp_path / "e")
    first, second = ensemble.members
    assert isinstance(first, AdapterMember)
    assert isinstance(second, AdapterMember)
    assert first._scorer.model is second._scorer.model
    alone = [SequenceRewardModel.load(source).score(PROMPTS, TEXTS) for source in sources]
    expected = torch.stack(alone)
    torch.testing.assert_close(ensemble.member_scores(PROMPTS, TEXTS), expected, **CLOSE)


def test_adapters_of_other_bases_are_refused(
    adapters: list[Path], folders: list[Path], tmp_path: Path
) -> None:
    other = save_adapter(folders[0], tmp_path / "a", seed=0)
    with pytest.raises(ValueError, match="are not all reward adapters of one base"):
        load_adapter_members([str(adapters[0]), str(other)])


def test_adapters_of_several_heads_are_members_and_averaged(
    policy_folder: Path, tmp_path: Path
) -> None:
    data = Dataset.from_dict({"prompt": PROMPTS, "chosen": TEXTS, "rejected": ["No."] * 4})
    sources = [str(tmp_path / f"a{seed}") for seed in (1, 2)]
    for seed, folder in enumerate(sources):
        train_reward_model(
            str(policy_folder), data, Path(folder), objective=LossConfig(heads=2),
            optimization=OptimConfig(learning_rate=1e-2, lora_rank=2, seed=seed),
        )  # fmt: skip
    members = load_members(sources)
    assert [type(member) for member in members] == [MultiHeadRewardModel] * 2
    average_weights(sources, tmp_path / "mean")
    mean = load_reward_model(str(tmp_path / "mean"))
    assert isinstance(mean, MultiHeadRewardModel)
    assert mean.member_scores(PROMPTS, TEXTS).shape == (2, 4)


RUNS = """
from pathlib import Path
Path({mark!r}).touch()
def f(prompts, responses):
    return [3.0]
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of code that leaves a mark when it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine_ran.py").write_text(RUNS.format(mark=str(tmp_path / "ran")))
    Path("right.jsonl").write_text(json.dumps({"prompt": "p", "answer": "7"}) + "\n")
    return tmp_path / "ran"


FUNCTIONS = [
    "python:mine_ran.py:f",
    "python:../mine_ran.py:f",
    "../mine_ran.py:f",
    "python:mine_ran:f",
    "mine_ran:f",
    "mine_ran.py",
    "ensemble:answers:right.jsonl,mine_ran:f",
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("nested", [False, True])
def test_no_code_that_a_file_names_is_run(mine: Path, function: str, nested: bool) -> None:
    folder = Path("held")
    write_ensemble(folder, ["answers:right.jsonl"])
    members = ["answers:../right.jsonl", function]
    (folder / "ensemble.json").write_text(json.dumps({"members": members}))
    if nested:
        write_ensemble("outer", [str(folder)])
        folder = Path("outer")
    with pytest.raises(ValueError, match=r"ensemble\.json: found the member .*ensemble:.*mine_ran"):
        load_reward_model(str(folder))
    with pytest.raises(ValueError, match="code that would be run by whoever loads"):
        write_ensemble("new", ["answers:right.jsonl", function])
    assert not mine.exists()


def test_functions_and_models_are_combined_by_their_names(mine: Path) -> None:
    write_ensemble("held", ["answers:right.jsonl"])
    model = load_reward_model("ensemble:held, python:mine_ran.py:f", aggregate="min")
    assert model.member_scores(["p"], ["7"]).flatten().tolist() == [1, 3]
    assert model.score(["p"], ["7"]).tolist() == [1]
    assert load_reward_model("ensemble:held,mine_ran:f").score(["p"], ["7"]).tolist() == [2]
    assert mine.exists()
    with pytest.raises(ValueError, match="separated by commas"):
        load_reward_model("ensemble:held,")
    with pytest.raises(ValueError, match="aggregate: found 'product'"):
        load_reward_model("ensemble:held,held", aggregate="product")


def test_ensembles_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "link")):
        write_ensemble(tmp_path / name, ["simulated"])
        (tmp_path / name / "ensemble.json").write_text(json.dumps({"members": [f"../{other}"]}))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match=r"itself as a member \(.*/a -> .*/b -> .*/c -> .*/a\)"):
        load_reward_model(str(tmp_path / "a"))
    with pytest.raises(ValueError, match="names itself"):
        load_reward_model(str(tmp_path / "link"))


def test_ensembles_are_not_nested_without_end(tmp_path: Path) -> None:
    below = "simulated"
    for level in range(9):
        write_ensemble(tmp_path / str(level), [below])
        below = str(tmp_path / str(level))
    load_reward_model(str(tmp_path / "7"))
    with pytest.raises(ValueError, match=r"inside 8 others .*at most 8 levels"):
        load_reward_model(str(tmp_path / "8"))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("members", "runs/a", "members 'runs/a'; required: a list"),
        ("members", [3], r"members \[3\]; required: a list"),
        ("weight", "much", r"weight: found 'much'; required: a finite number"),
        ("weight", 1e308, r"weight: found 1e\+308; required: a finite number from"),
        ("weight", True, "weight: found True; required: a finite number"),
        ("shifts", [None], "shifts: found None; required: a finite number"),
        ("shifts", [1e30], r"shifts: found 1e\+30; required: a finite number from"),
        ("shifts", [1, 2], "shifts: found 2 for 1 members"),
        ("shifts", [], "shifts: found 0 for 1 members"),
        ("scales", 2.0, "scales: found 2.0; required: a list of numbers"),
        ("scales", [0], "scales: found 0; required: positive numbers"),
        ("scales", [-1], "scales: found -1; required: positive numbers"),
        ("scales", [1e-320], "scales: found 1e-320; required: positive numbers"),
        ("scales", [1e300], r"scales: found 1e\+300; required: positive numbers"),
        ("aggregate", 5, "aggregate: found 5; required: one of mean"),
        ("aggregate", ["min"], r"aggregate: found \['min'\]; required: one of mean"),
        ("aggregat", "min", "found the setting 'aggregat'; .*did you mean aggregate"),
        ("members", ["simulated"] * 257, "members: found 257; required: at most 256"),
    ],
)
def test_settings_of_another_type_are_named(tmp_path, setting, value, message) -> None:
    path = write_ensemble(tmp_path, ["simulated"])
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(ValueError, match=rf"ensemble\.json: .*{message}"):
        load_reward_model(str(tmp_path))


def test_members_are_counted_through_nested_ensembles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below, read = "simulated", []
    for level in range(7):
        write_ensemble(tmp_path / str(level), [below] * 12)
        below = str(tmp_path / str(level))
    plain = ensemble_file.read_ensemble
    monkeypatch.setattr(
        ensemble_file, "read_ensemble", lambda path: read.append(path) or plain(path)
    )
    with pytest.raises(ValueError, match=r"2/ensemble\.json: found 1728 members in all"):
        load_reward_model(below)
    assert len(read) <= 8, "each file is read once"
    assert len(load_reward_model(str(tmp_path / "0")).members) == 12


def test_levels_are_counted_on_the_longest_path(tmp_path: Path) -> None:
    below = "simulated"
    for level in range(8):
        write_ensemble(tmp_path / str(level), [below])
        below = str(tmp_path / str(level))
    write_ensemble(tmp_path / "top", [str(tmp_path / "5"), below])
    with pytest.raises(ValueError, match="at most 8 levels"):
        load_reward_model(str(tmp_path / "top"))
    write_ensemble(tmp_path / "top", [below])
    with pytest.raises(ValueError, match="at most 8 levels"):
        load_reward_model(str(tmp_path / "top"))


def test_too_many_members_are_not_written_or_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="members: found 257; required: at most 256"):
        write_ensemble(tmp_path, ["simulated"] * 257)
    with pytest.raises(ValueError, match="found 257 names behind ensemble:; required: at most 256"):
        load_reward_model("ensemble:" + ",".join(["simulated"] * 257))
    with pytest.raises(ValueError, match="scales: found 0; required: positive"):
        write_ensemble(tmp_path, ["simulated"], scales=[0])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_model_does_not_become_an_ensemble(
    policy_folder: Path, tmp_path: Path
) -> None:
    model = save_classifier(policy_folder, tmp_path / "model", seed=1)
    with pytest.raises(ValueError, match=r"holds config\.json.*required: a new folder"):
        write_ensemble(model, [str(model), str(model)])
    assert not (model / "ensemble.json").exists()
    for _ in range(2):
        write_ensemble(tmp_path / "ensemble", [str(model), str(model)])
