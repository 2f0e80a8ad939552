"""Digests of models and data change with what they name, and with nothing else."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from rewardmodel.pretrained.digest import digest_model, digest_rows
from tests.reward_folders import save_adapter, save_classifier


def test_a_folder_has_the_digest_of_its_files(policy_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(policy_folder, copy)
    assert digest_model(str(copy)) == digest_model(str(policy_folder)) is not None
    (copy / "README.md").write_text("notes")
    assert digest_model(str(copy)) == digest_model(str(policy_folder))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert digest_model(str(copy)) != digest_model(str(policy_folder))


def test_adapters_and_ensembles_change_with_what_lies_beneath(
    policy_folder: Path, tmp_path: Path
) -> None:
    base = save_classifier(policy_folder, tmp_path / "base", seed=1)
    adapter = save_adapter(base, tmp_path / "adapter", seed=1)
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    (ensemble / "ensemble.json").write_text(json.dumps({"members": ["../adapter", "../ensemble"]}))
    before = [digest_model(str(path)) for path in (adapter, ensemble)]
    save_classifier(policy_folder, base, seed=2)
    after = [digest_model(str(path)) for path in (adapter, ensemble)]
    assert None not in before
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_functions_of_a_file_and_answers_have_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(prompts, responses): return [0.0] * len(responses)\n")
    names = [f"python:{file}:f", f"{file}:f", f"answers:{file}"]
    before = [digest_model(name) for name in names]
    file.write_text("def f(prompts, responses): return [1.0] * len(responses)\n")
    assert None not in before
    assert all(digest_model(n) != b for n, b in zip(names, before, strict=True))


def test_named_members_and_imported_modules_change_with_their_files(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_classifier(policy_folder, tmp_path / "base", seed=1)
    file = tmp_path / "module_of_mine.py"
    file.write_text("def f(prompts, responses): return [0.0] * len(responses)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("module_of_mine")
    names = [f"ensemble:{base},python:module_of_mine:f", "python:module_of_mine:f"]
    before = [digest_model(name) for name in names]
    file.write_text("def f(prompts, responses): return [1.0] * len(responses)\n")
    after = [digest_model(name) for name in names]
    assert None not in before
    assert all(one != other for one, other in zip(before, after, strict=True))
    save_classifier(policy_folder, base, seed=2)
    assert digest_model(names[0]) != after[0]


@pytest.mark.parametrize(
    "source", [None, "simulated", "python:builtins:abs", "nobody/nothing", "./no"]
)
def test_what_has_no_files_has_no_digest(source: str | None) -> None:
    assert digest_model(source) is None


def test_rows_have_a_digest_of_their_order_and_content() -> None:
    rows = [{"prompt": "a", "chosen": "b"}, {"prompt": "a\ud800", "chosen": None}]
    assert digest_rows(rows) == digest_rows([{"chosen": "b", "prompt": "a"}, rows[1]])
    assert digest_rows(rows) != digest_rows(rows[::-1])
    assert digest_rows(["ab", "c"]) != digest_rows(["a", "bc"])
