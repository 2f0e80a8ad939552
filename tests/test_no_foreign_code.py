"""Nothing that is loaded runs code: of models, adapters, tokenizers and data."""

import ast
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.generation.language_model import Policy
from rewardmodel.models.implicit import ImplicitRewardModel
from rewardmodel.models.loading import load_reward_model
from tests.chat_models import PROMPTS, write_chat_policy, write_chat_scorer
from tests.reward_folders import save_adapter, set_json

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("atari_bridge", "prefsearch", "policies", "rewardmodel", "search")
LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline", "get_config"}
IMPORTERS = {  # of names that are written in the code, or that the command line gives
    "atari_bridge/environments/gymnasium_make.py", "atari_bridge/acting/worker_pool.py",
    "prefsearch/cli/entry.py", "rewardmodel/models/function_import.py",
}  # fmt: skip


def calls() -> Iterator[tuple[str, int, str, str, dict[str, Any]]]:
    """File, line, what a function is an attribute of, its name, and keywords, of every call."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    function = node.func
                    owner, called = "", getattr(function, "id", "")
                    if isinstance(function, ast.Attribute):
                        owner, called = ast.unparse(function.value), function.attr
                    keywords = {
                        k.arg: getattr(k.value, "value", None) for k in node.keywords if k.arg
                    }
                    yield name, node.lineno, owner, called, keywords


def test_every_loader_is_told_to_run_no_code() -> None:
    found = [call for call in calls() if call[3] in LOADERS]
    assert len(found) >= 7
    for path, line, _, name, keywords in found:
        refused = keywords.get("trust_remote_code", ...) is False
        assert refused, f"{path}:{line}: {name} needs trust_remote_code=False"


def test_nothing_reads_pickles_or_runs_texts() -> None:
    for path, line, owner, name, keywords in calls():
        where = f"{path}:{line}: {owner}.{name}"
        assert (owner, name) not in {("yaml", "load"), ("torch", "load")}, where
        assert owner not in {"pickle", "marshal", "shelve", "joblib", "dill"}, where
        assert owner or name not in {"eval", "exec", "compile", "__import__"}, where
        assert name not in {"load_module", "exec_module"} or path in (
            *IMPORTERS, "atari_bridge/training/agent.py", "atari_bridge/training/run_state.py",
        ), where  # fmt: skip
        if name == "import_module" or name == "spec_from_file_location":
            assert path in IMPORTERS, where
        if (owner, name) in {("np", "load"), ("numpy", "load")}:
            assert keywords.get("allow_pickle", False) is False, where


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mark that the module `evil_code` leaves when it is imported; it can be."""
    code = tmp_path / "code"
    code.mkdir()
    mark = tmp_path / "ran"
    (code / "evil_code.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks is told to go on
    yield mark
    sys.modules.pop("evil_code", None)


def with_code(folder: Path, **config: Any) -> str:
    (folder / "evil_code.py").write_text((folder.parent / "code" / "evil_code.py").read_text())
    set_json(folder / "config.json", **config)
    return str(folder)


CLASSES = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
AUTO_MAP = {"auto_map": dict.fromkeys(CLASSES, "evil_code.Evil")}


def test_models_with_code_of_their_own_are_refused(ran: Path, tmp_path: Path) -> None:
    policy, scorer = tmp_path / "policy", tmp_path / "scorer"
    write_chat_policy(policy, "qwen")
    write_chat_scorer(scorer, "qwen")
    for folder in (policy, scorer):
        with_code(folder, **AUTO_MAP)
    Policy.load(str(policy))  # an architecture that transformers has needs no code
    load_reward_model(str(scorer)).score(PROMPTS, ["a"] * 3)
    for folder in (policy, scorer):
        set_json(folder / "config.json", model_type="evil")
    loads: list[Callable[[], Any]] = [
        lambda: Policy.load(str(policy)),
        lambda: ImplicitRewardModel.load(str(policy), reference=None),
        lambda: load_reward_model(str(scorer)),
    ]
    for load in loads:
        with pytest.raises(ValueError, match=r"needs code of its own .*which is not run"):
            load()
    assert not ran.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "who/kernel"},
        {"_attn_implementation": "who/kernel:attention"},
        {"text_config": {"attn_implementation": {"decoder": "who/kernel"}}},
    ],
)
def test_kernels_of_the_hub_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    write_chat_policy(tmp_path / "policy", "qwen")
    set_json(tmp_path / "policy" / "config.json", **config)
    with pytest.raises(ValueError, match=r"attn_implementation 'who/kernel.*would be run"):
        Policy.load(str(tmp_path / "policy"))


def test_tokenizers_with_code_of_their_own_are_refused(ran: Path, tmp_path: Path) -> None:
    write_chat_policy(tmp_path / "policy", "qwen")
    source = with_code(tmp_path / "policy")
    own = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil_code.Evil", None]}}
    set_json(tmp_path / "policy" / "tokenizer_config.json", **own)
    with pytest.raises(ValueError, match=r"the tokenizer of .*needs code of its own"):
        Policy.load(source)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"megatron_core": "evil_code", "megatron_config": {"a": 1}}, "megatron_core 'evil_code'"),
        ({"megatron_core": "evil_code"}, "a module that would be imported"),
        ({"base_model_name_or_path": "python:evil_code:Evil"}, "found the base 'python:evil_code"),
        ({"base_model_name_or_path": "evil_code.py"}, "found the base 'evil_code.py'"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path None; required"),
        ({"peft_type": 3}, "peft_type 3; required"),
        ({"peft_type": "EVIL"}, "adapter of a sequence classifier"),
    ],
)
def test_adapters_import_nothing(
    ran: Path, policy_folder: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    adapter = save_adapter(policy_folder, tmp_path / "adapter", seed=0)
    set_json(adapter / "adapter_config.json", **settings)
    with pytest.raises(ValueError, match=message):
        load_reward_model(str(adapter))
    assert not ran.exists()


def test_an_adapter_without_a_task_imports_no_library_that_it_names(
    ran: Path, policy_folder: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(policy_folder, tmp_path / "adapter", seed=0)
    mapping = {"base_model_class": "Evil", "parent_library": "evil_code"}
    set_json(adapter / "adapter_config.json", task_type=None, auto_mapping=mapping)
    for load in (Policy.load, load_reward_model):
        with pytest.raises(ValueError, match="adapter"):
            load(str(adapter))
    assert not ran.exists()


class Evil:
    def __reduce__(self) -> Any:
        return (open, (self.mark, "w"))

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_not_read(ran: Path, policy_folder: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "policy"
    write_chat_policy(folder, "qwen")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(ran)))
    with pytest.raises(ValueError, match=rf"{name} holds weights as a pickle"):
        Policy.load(str(folder))
    assert not ran.exists()


TEMPLATES = {
    "syntax": "{% for %}",
    "refuses": "{{ raise_exception('no') }}",
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "division": "{{ 1 // 0 }}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates_that_fail_are_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "policy"
    write_chat_policy(folder, "qwen")
    (folder / "chat_template.jinja").write_text(TEMPLATES[kind])
    with pytest.raises(ValueError, match=r"the chat template of .*policy refuses these messages"):
        Policy.load(str(folder)).encoder.prompt_ids(PROMPTS[0])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]", "null", ""])
def test_broken_tokenizers_are_named(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "policy"
    write_chat_policy(folder, "qwen")
    (folder / name).write_text(text)
    if (name, text) == ("tokenizer_config.json", "{}"):
        return  # may be enough
    with pytest.raises(ValueError, match="tokenizer"):
        Policy.load(str(folder))
