"""Checks of a model folder's files, before anything is loaded.

Weights are read from safetensors alone: other formats are pickles, which may run code. Missing,
truncated or malformed files are named, where the libraries' own errors name a byte or an attribute.
Headers are checked, too: transformers casts complex and integer weights to floats, and builds
whatever size a configuration describes before it reads the weights.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prefsearch.config.checks import shown
from prefsearch.storage.json_text import read_object
from prefsearch.storage.weights import WeightsError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_NOT_MODELS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"}
_COMPLEX = {"C64", "C128"}
_WHOLE = {"BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"}
_MASKS = {"BOOL", "U8"}  # of attention, which old checkpoints hold by the name of bias
_USUAL_LAYERS = 1000  # so many are built in seconds
_PACKED = 8  # numbers in a byte, of one bit each
_LAYERS = re.compile(r"(^|_)layers?$")
_COUNTS = re.compile(
    r"^(num|n)_|^(hidden|intermediate|vocab|embedding)_size$|^(d_model|d_ff|d_inner|ffn_dim|dim)$"
)
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_MADE_BY = "Save the model again with save_pretrained, or copy the file again"


def check_model_files(folder: Path) -> None:
    """Refuses a whole model's folder whose configuration or weights transformers cannot have saved.

    Raises:
        ValueError: Naming the file.
    """
    path = folder / "config.json"
    config = _check_config(path)
    if (folder / GENERATION_CONFIG).is_file():
        read_object(folder / GENERATION_CONFIG)
    files = weight_files(folder)
    quantized = config.get("quantization_config") is not None
    _require_float_weights(files, whole_numbers=quantized)
    size = sum(file.stat().st_size for file in set(files.values()))
    _require_sizes(path, config, tensors=len(files), size=size)


def check_tokenizer_files(folder: Path) -> None:
    """Refuses damaged settings of a tokenizer in a folder, and damaged files of the model there.

    Raises:
        ValueError: Naming the file.
    """
    whole = not (folder / ADAPTER_CONFIG).is_file()
    if whole and any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        check_model_files(folder)
    for name in ("config.json", TOKENIZER_CONFIG, "special_tokens_map.json"):
        if (folder / name).is_file():
            settings = read_object(folder / name)
            length = settings.get("model_max_length")
            if name != TOKENIZER_CONFIG or length is None:
                continue
            if isinstance(length, bool) or not isinstance(length, int | float) or length < 1:
                raise ValueError(
                    f"{folder / name}: found model_max_length {shown(length)}; required: a number "
                    "of tokens, at least 1. Put the file there that the tokenizer was saved with"
                )


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a model's folder, sorted by the tensors' names.

    Raises:
        WeightsError: If there is no file of safetensors, one is missing or truncated, or the
            tensors that the index names are not there.
    """
    if (folder / WEIGHTS).is_file():
        return dict.fromkeys(sorted(_tensor_names(folder / WEIGHTS)), folder / WEIGHTS)
    index = folder / INDEX
    if not index.is_file():
        _refuse_other_formats(folder, WEIGHTS)
    parts = read_object(index).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        raise WeightsError(
            f"{index}: found weight_map {str(parts)[:60]!r}; required: the file of every weight. "
            f"{_MADE_BY}"
        )
    for part in sorted({str(part) for part in parts.values()}):
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise WeightsError(
                f"{index}: found the file {part!r}; required: a .safetensors file in the same "
                f"folder. {_MADE_BY}"
            )
        named = {name for name, file in parts.items() if file == part}
        if not (folder / part).is_file():
            raise WeightsError(
                f"{folder / part} is missing, and {index} names it for {len(named)} weights; "
                f"required: every file that the index names. {_MADE_BY}"
            )
        lacking = sorted(named - _tensor_names(folder / part))
        if lacking:
            raise WeightsError(
                f"{folder / part} holds no weight {lacking[0]}, which {index} puts there "
                f"({len(lacking)} are lacking); required: all of them. {_MADE_BY}"
            )
    return {name: folder / parts[name] for name in sorted(parts)}


def check_adapter_files(folder: Path) -> dict[str, Any]:
    """Reads `adapter_config.json`, and refuses files of an adapter that cannot be loaded.

    Raises:
        ValueError: Naming the file.
    """
    path = folder / ADAPTER_CONFIG
    settings = read_object(path)
    for name in ("peft_type", "base_model_name_or_path"):
        if not isinstance(settings.get(name), str) or not settings[name]:
            raise ValueError(
                f"{path}: found {name} {settings.get(name)!r}; required: a name. Save the adapter "
                "again with save_pretrained of peft"
            )
    base = settings["base_model_name_or_path"]
    if base.startswith("python:") or base.endswith(".py"):
        raise ValueError(
            f"{path}: found the base {base!r}; required: a model's folder or hub id, since no code "
            "that a file names is run"
        )
    module = settings.get("megatron_core") or "megatron.core"
    if settings.get("megatron_config") is not None or module != "megatron.core":
        raise ValueError(
            f"{path}: found megatron_core {module!r}, a module that would be imported; required: "
            "none, since no code that a file names is run. Take megatron_config and megatron_core "
            "out of the file"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        _refuse_other_formats(folder, ADAPTER_WEIGHTS)
    names = _tensor_names(folder / ADAPTER_WEIGHTS)
    _require_float_weights(dict.fromkeys(sorted(names), folder / ADAPTER_WEIGHTS))
    return settings


def _check_config(path: Path) -> dict[str, Any]:
    """Refuses a `config.json` that describes no model, or names code."""
    if not path.is_file():
        held = ", ".join(sorted(entry.name for entry in path.parent.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{path} does not exist (the folder holds {held}); required: the configuration of a "
            f"model, with its weights beside it. {_MADE_BY}"
        )
    config = read_object(path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ValueError(
            f"{path}: found model_type {kind!r} among {len(config)} settings; required: an "
            "architecture of transformers, such as 'llama'. Put the config.json there that the "
            "model was saved with"
        )
    require_architectures(path, config)
    for name, part in _implementations(config):
        if "/" in part or ":" in part:
            raise ValueError(
                f"{path}: found {name} {part!r}, code of the hub that would be run; required: one "
                "of transformers' own, since no code that a file names is run. Take it out of the "
                "file"
            )
    return config


def require_architectures(path: Path, config: Mapping[str, object]) -> None:
    """Refuses architectures that are no list of names; null is allowed.

    Raises:
        ValueError: Naming the file.
    """
    kinds = config.get("architectures")
    if kinds is not None and not (
        isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)
    ):
        raise ValueError(
            f"{path}: found architectures {shown(kinds)}; required: a list of names, such as "
            "['LlamaForCausalLM']. Put the config.json there that the model was saved with"
        )


def _implementations(config: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """The layer implementations that a configuration, or one nested in it, names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            inside = name if "implementation" in name else above
            yield from _implementations(value, inside)
        elif isinstance(value, str) and ("implementation" in name or above):
            yield name if "implementation" in name else above, value


def _tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a file, whose header and length are checked."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}, {path.stat().st_size} bytes, cannot be read as safetensors "
            f"({type(error).__name__}: {error}); "
            "required: a whole file. Copy or download it again: it may be cut short, or a Git LFS "
            "pointer"
        ) from error


def _refuse_other_formats(folder: Path, wanted: str) -> None:
    """Raises, naming what lies in a folder instead of safetensors."""
    held = sorted(entry.name for entry in folder.iterdir())
    pickles = [n for n in held if Path(n).suffix in _PICKLES and n not in _NOT_MODELS]
    if pickles:
        raise WeightsError(
            f"{folder / pickles[0]} holds weights as a pickle, which may run code when it is "
            f"loaded; required: {wanted}. Where the file can be trusted, load the model once with "
            f"transformers or peft in Python and call its save_pretrained({str(folder)!r})"
        )
    raise WeightsError(
        f"{folder} holds no {wanted} (it holds {', '.join(held[:8]) or 'nothing'}); required: the "
        f"weights beside the configuration. {_MADE_BY}"
    )


def _require_float_weights(files: Mapping[str, Path], *, whole_numbers: bool = False) -> None:
    """Refuses complex weights, and integer ones unless `whole_numbers` (a quantized model)."""
    names: dict[Path, list[str]] = {}
    for name, path in files.items():
        names.setdefault(path, []).append(name)
    for path, held in names.items():
        with safe_open(path, framework="pt") as file:
            for name in held:
                dtype = file.get_slice(name).get_dtype()
                if dtype in _COMPLEX or (not whole_numbers and _is_whole_weight(name, dtype)):
                    raise WeightsError(
                        f"{path}: the weight {name} is of dtype {dtype}; required: real "
                        "floating-point numbers, or whole ones with a quantization_config in "
                        "config.json. Save the model again with save_pretrained"
                    )


def _require_sizes(path: Path, config: Mapping[str, object], *, tensors: int, size: int) -> None:
    """Refuses a configuration far larger than its weight files of `tensors` and `size` bytes."""
    for part in _parts(config):
        counts = {name: value for name, value in part.items() if type(value) is int}
        for name, value in counts.items():
            if _LAYERS.search(name) and value > max(tensors, _USUAL_LAYERS):
                _refuse_size(path, name, value, f"{tensors} tensors")
            if _COUNTS.search(name) and value > _PACKED * size:
                _refuse_size(path, name, value, f"{size} bytes")
        width = max((counts.get(name, 1) for name in _WIDTHS), default=1)
        for name in ("vocab_size", "intermediate_size"):
            if width * counts.get(name, 1) > _PACKED * size:
                _refuse_size(path, name, counts[name], f"{size} bytes", f" for a width of {width}")


def _refuse_size(path: Path, name: str, value: int, held: str, of: str = "") -> None:
    raise WeightsError(
        f"{path}: found {name} {shown(value)}{of}, and the weight files hold {held}; required: "
        "sizes of the model whose weights lie beside it. Put the config.json there that the "
        "weights were saved with"
    )


def _parts(config: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """A configuration and those inside it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _is_whole_weight(name: str, dtype: str) -> bool:
    last = name.rpartition(".")[2]
    return dtype in _WHOLE and (last == "weight" or (last == "bias" and dtype not in _MASKS))
