"""Converting GGUF files to ordinary model folders, dequantized once and cached.

transformers loads a GGUF file as a quantized model, which can be neither saved nor trained. Here
the weights are dequantized, that mark is removed, and the model is saved like any other, in float32
where the file is quantized and else in its own dtype.
"""

import hashlib
import importlib.util
import json
import logging
import os
import struct
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import new_folder
from prefsearch.storage.json_text import json_text
from rewardmodel.pretrained.weights import load_pretrained

_logger = logging.getLogger(__name__)
_MAGIC = b"GGUF"
_LAYOUT = 1  # of a converted folder; a change converts all files anew
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")  # any of them ends a reply
_BROKEN = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RuntimeError,
    NotImplementedError, struct.error,
)  # fmt: skip
"""What readers raise over a file that is cut short or holds what they do not know."""


def cache_folder() -> Path:
    """The folder of converted models.

    `$PREFSEARCH_CACHE`; else `prefsearch` in `$HF_HOME` or in `$XDG_CACHE_HOME`, the first that is
    set; else `~/.cache/prefsearch`.
    """
    own = os.environ.get("PREFSEARCH_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "prefsearch"


def converted_folder(file: Path) -> Path:
    """The folder of a GGUF file's model, which is converted on first use.

    The folder's name depends on the file's path, size and modification time, so a changed file is
    converted again. Of several processes one converts and the others wait.

    Raises:
        ValueError: If it is no GGUF file, the package `gguf` is missing, or transformers cannot
            read the file.
        StorageError: If the cache cannot be written.
    """
    _require_gguf(file)
    state = file.stat()
    identity = f"{_LAYOUT}\n{file.resolve()}\n{state.st_size}\n{state.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = cache_folder() / "gguf" / f"{file.stem}-{digest}"
    if not _is_complete(folder):
        with naming_path(folder, "write"):
            folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not _is_complete(folder):
                _convert(file, folder)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / "config.json").is_file()  # folders appear in one rename


def _require_gguf(file: Path) -> None:
    with file.open("rb") as stream:
        begins = stream.read(len(_MAGIC))
    if begins != _MAGIC:
        raise ValueError(
            f"{file} is no GGUF file: it begins with {begins!r}; required: {_MAGIC!r}. The "
            "download may be incomplete, or a Git LFS pointer"
        )


def _convert(file: Path, folder: Path) -> None:
    """Loads a GGUF file and saves it as an ordinary folder."""
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{file}: the package gguf is not installed; required: it, to read GGUF files. "
            "pip install 'prefsearch[gguf]' (or pip install gguf)"
        )
    _logger.info("converting %s, once, to %s", file, folder)
    try:
        model, tokenizer = _load(file)
    except ImportError as error:
        raise ValueError(
            f"{file}: {error}; required: a newer gguf. pip install --upgrade gguf"
        ) from error
    except _BROKEN as error:
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {line}); required: a whole GGUF file "
            "of a causal language model whose architecture and tokenizer transformers supports. "
            "Load the model's own folder or hub id instead"
        ) from error
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        _drop_tokens(scratch, beyond=model.get_input_embeddings().weight.shape[0])
        write_json_atomic(scratch / "gguf_source.json", {"file": str(file.resolve())})


def _drop_tokens(folder: Path, *, beyond: int) -> None:
    """Drops tokens that the model has no embeddings for.

    Tokenizer classes of transformers add an unknown token where the file names none, which would
    grow the embeddings.
    """
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    extra = {token["content"] for token in written["added_tokens"] if token["id"] >= beyond}
    if not extra:
        return
    written["added_tokens"] = [t for t in written["added_tokens"] if t["content"] not in extra]
    if written["model"].get("unk_token") in extra:
        written["model"]["unk_token"] = None
    path.write_text(json_text(written), encoding="utf-8")
    kept = json.loads(settings.read_text(encoding="utf-8"))
    kept = {name: value for name, value in kept.items()
            if not (isinstance(value, str) and value in extra)}  # fmt: skip
    settings.write_text(json_text(kept, indent=2), encoding="utf-8")


def _load(file: Path) -> tuple[Any, Any]:
    """A GGUF file's model, dequantized, and its tokenizer.

    Raises:
        ValueError: If weights are missing; or whatever the readers raise.
    """
    import transformers
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": file.name, "dtype": "auto"}
    packed: Any = getattr(transformers, "GgufConfig", None)  # versions without it always dequantize
    if packed is not None:
        options["quantization_config"] = packed(dequantize=True)
    model, _ = load_pretrained(
        AutoModelForCausalLM, str(file.parent), what="causal language model", **options
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(file.parent), gguf_file=file.name, trust_remote_code=False
    )
    fields = GGUFReader(file).fields
    ends = [fields.get(f"tokenizer.ggml.{key}") for key in _END_KEYS]
    known = list(dict.fromkeys(int(end.contents()) for end in ends if end is not None))
    if len(known) > 1:
        model.generation_config.eos_token_id = known
    # What marks a model as quantized, and so as one that cannot be saved.
    model.hf_quantizer = None
    model.is_quantized = False
    for holder, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    return model, tokenizer
