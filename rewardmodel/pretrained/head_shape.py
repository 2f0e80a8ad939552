"""The number of outputs of a classifier's head, read from its weights.

Configurations may leave the number of labels out, and transformers then assumes two. The head is
found by building the architecture on the meta device for two and for three labels and comparing
shapes, so any architecture of transformers is supported.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from prefsearch.storage.json_text import read_object
from rewardmodel.pretrained.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS, check_model_files
from rewardmodel.pretrained.weights import without_doubled_warnings

_logger = logging.getLogger(__name__)


def head_labels(source: str, task: str) -> int | None:
    """The number of labels of a checkpoint's head, or None where it has none.

    Of an adapter its own head counts, or else its base's. `task` is "SEQ_CLS" or "TOKEN_CLS".
    """
    adapter = Path(source) / ADAPTER_CONFIG
    base = source
    if adapter.is_file():
        base = str(read_object(adapter).get("base_model_name_or_path"))
    names = _head_names(base, task)
    if not names:
        return None
    places = ([(source, ADAPTER_WEIGHTS)] if base != source else []) + [(base, WEIGHTS)]
    for place, file in places:
        for key, shape in _shapes(place, file, names):
            plain = key.replace(".modules_to_save", "").replace(".default", "")
            if any(plain == name or plain.endswith(f".{name}") for name in names):
                return int(shape[0])
    return None


def _head_names(source: str, task: str) -> set[str]:
    """Names of the weights whose first dimension is the number of labels."""
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    auto: Any = {
        "SEQ_CLS": AutoModelForSequenceClassification,
        "TOKEN_CLS": AutoModelForTokenClassification,
    }[task]
    found: list[dict[str, torch.Size]] = []
    try:
        if Path(source).is_dir():
            check_model_files(Path(source))  # of sizes that can be built
        for labels in (2, 3):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            config.num_labels = labels
            with torch.device("meta"), without_doubled_warnings():
                model = auto.from_config(config, trust_remote_code=False)
            found.append({name: weight.shape for name, weight in model.named_parameters()})
    except Exception as error:  # noqa: BLE001 whatever an architecture raises for its settings
        _logger.debug("%s: the head's shape is unknown (%s)", source, error)
        return set()  # an error when the model is loaded
    two, three = found
    return {
        name
        for name, shape in two.items()
        if shape[:1] == (2,) and three[name][:1] == (3,) and shape[1:] == three[name][1:]
    }


def _shapes(source: str, file: str, names: set[str]) -> Iterator[tuple[str, Any]]:
    """Names and shapes of a checkpoint's weights."""
    path = _find(source, file)
    if path is not None:
        yield from _shapes_in(path)
        return
    index = _find(source, f"{file}.index.json")
    if index is not None:
        parts = read_object(index)["weight_map"]
        ends = {name.rpartition(".")[0].rpartition(".")[2] for name in names}
        wanted = [part for key, part in parts.items() if ends & set(key.split("."))]
        for part in dict.fromkeys(wanted):
            held = _find(source, part)
            if held is not None:
                yield from _shapes_in(held)


def _shapes_in(path: Path) -> Iterator[tuple[str, Any]]:
    with safe_open(path, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            yield key, weights.get_slice(key).get_shape()


def _find(source: str, file: str) -> Path | None:
    """A file of a folder, or of a model of the hub."""
    if Path(source).is_dir():
        path = Path(source) / file
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        source,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if found is None else Path(found)
