"""Averaging the weights of reward models: an ensemble at the cost of one model.

Models that were fine-tuned from one base with different seeds, data orders or learning rates lie in
one basin, where the mean of the weights predicts much as the mean of the predictions does. Models
of different bases have no such mean; names and shapes are checked, nothing beyond.

Adapters are merged into their base before they are averaged: the mean of the factors A and B is not
the mean of their products. Tensors are read, averaged and released one by one; memory holds one
file of the result.

Source: WARM, Ramé et al. 2024 (https://arxiv.org/abs/2401.12187).
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prefsearch.progress import progress
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import new_folder
from prefsearch.storage.json_text import read_object
from prefsearch.storage.weights import require_finite_weights
from rewardmodel.pretrained.adapters import adapter_folder, load_causal
from rewardmodel.pretrained.checkpoints import Task, load_classifier, read_config
from rewardmodel.pretrained.files import INDEX, check_adapter_files, check_model_files, weight_files
from rewardmodel.pretrained.head_shape import head_labels
from rewardmodel.pretrained.source import resolve_model
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.pretrained.weights import RETAKE

_COPIED = {".json", ".txt", ".model", ".jinja"}  # tokenizers and what belongs to them
_TASKS: dict[str, Task] = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
}
# Settings in which models of one kind may differ.
_OWN = {"_name_or_path", "transformers_version", "reward_shift", "dtype", "torch_dtype"}


def average_weights(
    sources: Sequence[str], out: Path, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Averages the weights of models and saves the result as an ordinary model folder.

    Args:
        sources: Local or packaged folders of models of one architecture and vocabulary; adapters of
            reward models are merged first. Everything but the weights is copied from the first;
            `reward_shift` is averaged.
        out: The new folder, which appears in one rename.
        weights: Of each model, scaled to sum to 1; negative ones extrapolate, and (1 - t, t)
            interpolate. None takes equal weights.

    Returns:
        `models`, `weights`, `tensors` and `parameters`.

    Raises:
        ValueError: If there are fewer than two sources, or they differ in kind; the message names
            the first difference.
        StorageError: If the disk is full.
    """
    shares = _shares(len(sources), weights)
    sources = [resolve_model(source) for source in sources]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(_as_whole_model(source)) for source in sources]
        files = [weight_files(folder) for folder in folders]
        for folder in folders:
            check_model_files(folder)
        _require_alike(folders, sources, files)
        _require_whole(folders[0])  # and so are the others, which are alike
        layout: dict[Path, list[str]] = {}
        for name, path in files[0].items():
            layout.setdefault(path, []).append(name)
        count = 0
        with (
            new_folder(out) as scratch,
            progress("averaging", len(files[0])) as bar,
        ):
            for path in folders[0].iterdir():
                if path.suffix in _COPIED and path.name not in (INDEX, "ensemble.json"):
                    shutil.copy(path, scratch / path.name)
            for path, names in layout.items():
                made = {}
                for name in names:
                    made[name] = _average(name, files, shares, sources)
                    count += made[name].numel()
                    bar.advance()
                save_file(made, scratch / path.name, metadata={"format": "pt"})
            if (folders[0] / INDEX).is_file():
                shutil.copy(folders[0] / INDEX, scratch / INDEX)
            _write_config(folders, scratch, shares)
    return {
        "models": list(sources),
        "weights": shares,
        "tensors": len(files[0]),
        "parameters": count,
    }


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """Weights that sum to 1."""
    if count < 2:
        raise ValueError(f"found {count} models to average; required: at least 2")
    if weights is None:
        return [1 / count] * count
    total = sum(weights)
    if len(weights) != count or abs(total) < 1e-6:
        raise ValueError(
            f"weights: found {list(weights)} for {count} models; required: one each, with a sum "
            "other than 0"
        )
    return [weight / total for weight in weights]


@contextlib.contextmanager
def _as_whole_model(source: str) -> Iterator[Path]:
    """The folder of a model with all its weights; temporary where it is an adapter."""
    adapter = adapter_folder(source)
    if adapter is None:
        yield Path(source)
        return
    task = check_adapter_files(adapter).get("task_type")
    if task not in ("SEQ_CLS", "TOKEN_CLS"):
        raise ValueError(
            f"{source} is an adapter for {task}; required: one of a reward model (SEQ_CLS or "
            "TOKEN_CLS). Merge it with merge_and_unload() and save the whole model"
        )
    with tempfile.TemporaryDirectory() as scratch:
        model = load_classifier(source, task=task, labels=None, init_head=False)
        tokenizer = load_tokenizer(source)
        whole = model.merge_and_unload()
        whole.config.pad_token_id = tokenizer.pad_token_id
        whole.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        yield Path(scratch)


def _require_whole(folder: Path) -> None:
    """Loads a model once, which refuses missing weights."""
    kinds = [str(name) for name in read_config(str(folder)).get("architectures") or []]
    for ending, task in _TASKS.items():
        if any(name.endswith(ending) for name in kinds):
            held = head_labels(str(folder), task)  # models without a head are allowed
            load_classifier(
                str(folder), task=task, labels=held, init_head=held is not None, dtype="auto"
            )
            return
    load_causal(str(folder), merge=False, dtype="auto")


def _require_alike(
    folders: Sequence[Path], sources: Sequence[str], files: Sequence[Mapping[str, Path]]
) -> None:
    """Refuses models of different kinds, by the first difference."""
    first = read_config(str(folders[0]))
    vocabulary = load_tokenizer(str(folders[0])).get_vocab()
    for folder, source, mine in zip(folders[1:], sources[1:], files[1:], strict=True):
        other = read_config(str(folder))
        # The kind first: all else differs, too, where it does.
        names = sorted({*first, *other} - _OWN)
        for name in sorted(names, key=lambda n: n not in ("architectures", "model_type")):
            if first.get(name) != other.get(name):
                _refuse(sources[0], source, f"config {name}", first.get(name), other.get(name))
        if load_tokenizer(str(folder)).get_vocab() != vocabulary:
            _refuse(sources[0], source, "the tokenizer", "one vocabulary", "another")
        for name in sorted({*files[0], *mine}):
            here, there = name in files[0], name in mine
            if not (here and there):
                _refuse(sources[0], source, f"tensor {name}", *(
                    "there" if held else "missing" for held in (here, there)
                ))  # fmt: skip
            shapes = [_shape(held[name], name) for held in (files[0], mine)]
            if shapes[0] != shapes[1]:
                _refuse(sources[0], source, f"the shape of {name}", *shapes)


def _refuse(first: str, second: str, what: str, found: object, other: object) -> None:
    raise ValueError(
        f"{what} differs: {found} in {first}, {other} in {second}; required: models fine-tuned "
        "from one base, alike in all but their weights. Use an ensemble for others (`prefsearch "
        "reward ensemble`)"
    )


def _shape(path: Path, name: str) -> list[int]:
    with safe_open(path, framework="pt") as file:
        return file.get_slice(name).get_shape()


def _read(path: Path, name: str, source: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        weight = file.get_tensor(name)
    require_finite_weights(source, [(name, weight)], remedy=RETAKE)
    return weight


def _average(
    name: str, files: Sequence[Mapping[str, Path]], shares: Sequence[float], sources: Sequence[str]
) -> Tensor:
    """One averaged tensor, in the first source's dtype; whole numbers only where all are equal."""
    first = _read(files[0][name], name, sources[0])
    if not first.is_floating_point():
        for source, mine in zip(sources[1:], files[1:], strict=True):
            if not torch.equal(first, _read(mine[name], name, source)):
                raise ValueError(
                    f"tensor {name} ({first.dtype}) differs between {sources[0]} and {source}; "
                    "required: equal, since whole numbers have no mean. Quantized models cannot be "
                    "averaged; take the models before quantization"
                )
        return first
    total = shares[0] * first.double()
    for share, mine, source in zip(shares[1:], files[1:], sources[1:], strict=True):
        total += share * _read(mine[name], name, source).double()
    found = total.to(first.dtype).contiguous()
    remedy = "Take weights that sum to less in size"
    require_finite_weights("the average", [(name, found)], remedy=remedy)
    return found


def _write_config(folders: Sequence[Path], scratch: Path, shares: Sequence[float]) -> None:
    """Writes the first model's configuration, with the mean of the shifts."""
    configs = [read_object(folder / "config.json") for folder in folders]
    made = configs[0]
    shifts = [config.get("reward_shift") or 0.0 for config in configs]
    several = [shift if isinstance(shift, list) else [shift] for shift in shifts]
    if any(any(shift) for shift in several):
        width = max(map(len, several))
        rows = [shift * width if len(shift) < width else shift for shift in several]
        mean = [sum(s * row[i] for s, row in zip(shares, rows, strict=True)) for i in range(width)]
        made["reward_shift"] = mean if width > 1 else mean[0]
    write_json_atomic(scratch / "config.json", made)
