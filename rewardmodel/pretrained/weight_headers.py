"""What the headers of weight files say: numbers of which kind, and room for which sizes.

transformers casts whatever a file holds to the dtype asked for: complex numbers lose their
imaginary part and quantized ones their scale. And it builds whatever a configuration describes,
however large, before it looks at the weights.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from prefsearch.config.checks import shown
from prefsearch.storage.weights import WeightsError

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


def require_float_weights(files: Mapping[str, Path], *, whole_numbers: bool = False) -> None:
    """Refuses weights that are complex or whole numbers.

    Args:
        files: The file of each tensor.
        whole_numbers: Whether whole numbers are taken, as those of a quantized model.

    Raises:
        WeightsError: Naming the first, and its file.
    """
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


def require_sizes(path: Path, config: Mapping[str, Any], *, tensors: int, size: int) -> None:
    """Refuses a configuration of a model far larger than the weights beside it.

    Args:
        path: Of the configuration, for messages.
        config: Its entries, among them configurations of parts.
        tensors: How many the weight files hold.
        size: Of the weight files, in bytes.

    Raises:
        WeightsError: Naming the setting.
    """
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


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration and those inside it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _is_whole_weight(name: str, dtype: str) -> bool:
    last = name.rpartition(".")[2]
    return dtype in _WHOLE and (last == "weight" or (last == "bias" and dtype not in _MASKS))
