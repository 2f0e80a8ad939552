"""Settings of ours in a model's config.json are checked wherever one is read."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble_file import write_ensemble
from rewardmodel.models.loading import load_reward_model
from rewardmodel.models.token_value import TokenValueModel
from rewardmodel.pretrained.checkpoints import load_classifier
from rewardmodel.pretrained.config_fields import OWN_SETTINGS, require_own_settings
from tests.reward_folders import save_adapter, save_classifier, set_json

WRONG = [
    ("reward_shift", [1], "a number from"),
    ("reward_shift", "a", "a number from"),
    ("reward_shift", "1.5", "a number from"),
    ("reward_shift", {}, "a number from"),
    ("reward_shift", True, "a number from"),
    ("reward_shift", 1e300, "a number from"),
    ("reward_shift", -(10**30), "a number from"),
    ("reward_heads", "x", "a whole number from 1"),
    ("reward_heads", -1, "a whole number from 1"),
    ("reward_heads", 0, "a whole number from 1"),
    ("reward_heads", 1.0, "a whole number from 1"),
    ("reward_heads", False, "a whole number from 1"),
    ("reward_heads", 10**12, "a whole number from 1"),
    ("step_separator", "", "the text between steps"),
    ("step_separator", 5, "the text between steps"),
    ("step_separator", ["\n"], "the text between steps"),
    ("input_format", "text", "version 1"),
    ("input_format", {"version": True, "name": "text"}, "version 1"),
    ("input_format", {"version": 1, "name": ["text"]}, "version 1"),
    ("input_format", {"version": 1, "name": "text", "messages": "no"}, "version 1"),
]


@pytest.fixture(scope="module")
def models(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    adapter = save_adapter(policy_folder, root / "adapter", seed=0)
    (adapter / "config.json").write_text("{}")
    return {
        "sequence": save_classifier(policy_folder, root / "s", seed=0),
        "heads": save_classifier(policy_folder, root / "h", seed=0, labels=2, reward_heads=2),
        "steps": save_classifier(policy_folder, root / "p", seed=0, labels=2, tokens=True),
        "adapter": adapter,
    }


@pytest.mark.parametrize(("name", "value", "required"), WRONG)
@pytest.mark.parametrize("kind", ["sequence", "steps", "adapter"])
def test_a_wrong_setting_is_named_with_its_file(
    models: dict[str, Path], tmp_path: Path, kind: str, name: str, value: Any, required: str
) -> None:
    folder = shutil.copytree(models[kind], tmp_path / "model")
    set_json(folder / "config.json", **{name: value})
    with pytest.raises(ValueError, match=rf"config\.json: found {name} .*required: {required}"):
        load_reward_model(str(folder))


@pytest.mark.parametrize("shift", [[1.0], [1.0, 2.0, 3.0], [1.0, "a"], [1.0, 1e300], ["1", "2"]])
def test_shifts_are_one_for_each_head(models: dict[str, Path], tmp_path: Path, shift: list) -> None:
    folder = shutil.copytree(models["heads"], tmp_path / "model")
    set_json(folder / "config.json", reward_shift=shift)
    with pytest.raises(ValueError, match=r"config\.json: found reward_shift .* or 2 of them"):
        load_reward_model(str(folder))


def test_heads_are_as_many_as_labels(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["heads"], tmp_path / "model")
    set_json(folder / "config.json", reward_heads=3)
    with pytest.raises(ValueError, match=r"config\.json says reward_heads 3 .* 2 labels"):
        load_reward_model(str(folder))


@pytest.mark.parametrize("path", ["values", "members", "average", "train", "kind"])
def test_every_reader_of_a_configuration_checks_it(
    models: dict[str, Path], tmp_path: Path, path: str
) -> None:
    folder = shutil.copytree(models["sequence"], tmp_path / "model")
    source = str(folder)
    adapter = shutil.copytree(models["adapter"], tmp_path / "adapter")
    for place in (folder, adapter):
        set_json(place / "config.json", reward_shift="a")
    write_ensemble(tmp_path / "both", [str(models["adapter"]), str(adapter)])
    paths: dict[str, Any] = {
        "values": lambda: TokenValueModel.load(source),
        "members": lambda: load_reward_model(str(tmp_path / "both")),
        "average": lambda: average_weights([source, source], tmp_path / "out"),
        "train": lambda: load_classifier(source, task="SEQ_CLS", labels=1, init_head=True),
        "kind": lambda: load_reward_model(source, kind="sequence"),
    }
    with pytest.raises(ValueError, match=r"config\.json: found reward_shift 'a'; required"):
        paths[path]()


def test_settings_that_training_writes_are_taken() -> None:
    require_own_settings("m", dict.fromkeys(OWN_SETTINGS))
    written = {"version": 1, "name": "pair", "messages": True}
    require_own_settings(
        "m", {"reward_shift": [0.5, -1], "reward_heads": 2, "step_separator": "\n",
              "input_format": written},
    )  # fmt: skip
    require_own_settings("m", {"reward_shift": 0, "input_format": written})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pad_token_id": 1_000_000}, "config.json holds a pad_token_id .*vocab_size"),
        ({"architectures": 5}, r"config\.json: found architectures 5; required: a list"),
        ({"architectures": "LlamaModel"}, "found architectures 'LlamaModel'; required: a list"),
        ({"architectures": [5]}, r"found architectures \[5\]; required: a list"),
        ({"id2label": 5}, "could be loaded from"),
        ({"hidden_size": "x"}, "could be loaded from"),
    ],
)
def test_a_wrong_setting_of_the_architecture_is_a_users_mistake(
    models: dict[str, Path], tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(models["sequence"], tmp_path / "model")
    set_json(folder / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        load_reward_model(str(folder))
