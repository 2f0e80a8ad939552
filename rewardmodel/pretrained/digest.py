"""Digests of a run's inputs: models by their files, data by their rows.

A run compares them before it resumes, since a model or dataset may have changed under the same name
(`prefsearch.run.directory`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from prefsearch.storage.digests import describe_file, digest_of
from prefsearch.storage.json_text import json_text
from rewardmodel.pretrained.paths import function_file, named_beneath
from rewardmodel.pretrained.source import named_members, names_function, resolve_model


def digest_model(source: str | None) -> str | None:
    """A digest of a model's files, or None where it has none.

    A folder or file has the digest of its files, an adapter or ensemble also that of its base or
    members; a hub id has the commit in the cache.

    Raises:
        ValueError: If the source names a package or GGUF file that is not there.
        StorageError: If a file cannot be read.
    """
    return None if source is None else _digest(source, frozenset())


def digest_rows(rows: Iterable[object]) -> str:
    """A digest of rows: prompts, mappings of columns, or anything JSON-like."""
    return digest_of(_row_text(row) for row in rows)


def _digest(source: str, above: frozenset[str]) -> str | None:
    names = named_members(source)
    if names is not None:
        members = [_digest(name, above) for name in names]
        return None if None in members else digest_of(str(part) for part in members)
    file = function_file(source)
    if file is not None:
        return describe_file(file)["sha256"] if file.is_file() else None
    if names_function(source):
        return None
    folder = Path(resolve_model(source))
    if not folder.is_dir():
        return _cached_commit(source)
    place = str(folder.resolve())
    if place in above:
        return None  # a cycle of ensembles, an error when it is loaded
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
    parts = [f"{path.name} {describe_file(path)['sha256']}" for path in files]
    beneath = [_digest(name, above | {place}) for name in named_beneath(folder)]
    return digest_of([*parts, *(str(part) for part in beneath)])


def _cached_commit(source: str) -> str | None:
    """The commit of a hub id that lies in the cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in ("config.json", "adapter_config.json", "ensemble.json"):
        try:
            found = try_to_load_from_cache(source, name)
        except HFValidationError:
            return None
        if isinstance(found, str):
            return Path(found).parent.name  # snapshots/COMMIT/config.json
    return None


def _row_text(row: object) -> str:
    """A row as JSON; as Python where it holds what JSON does not have."""
    plain = dict(row) if isinstance(row, Mapping) else row
    try:
        return json_text(plain, sort_keys=True)
    except ValueError:
        return repr(plain)
