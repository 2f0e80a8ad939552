"""Sizes and SHA-256 digests of files, to detect changes."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefsearch.storage.errors import naming_path
from prefsearch.storage.json_text import json_text

FileFacts = dict[str, Any]
"""Of one file: `bytes` and `sha256`."""


def describe_file(path: Path) -> FileFacts:
    """Size and digest of a file.

    Raises:
        StorageError: If it cannot be read.
    """
    with naming_path(path, "read"), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def describe_files(paths: Iterable[Path], *, base: Path) -> dict[str, FileFacts]:
    """Sizes and digests of files and of folders' files, keyed by path relative to `base`.

    Raises:
        StorageError: If one cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {path.relative_to(base).as_posix(): describe_file(path) for path in files}


def find_damage(described: Mapping[str, object], *, base: Path) -> str | None:
    """Describes the first file that differs from its recorded size or digest, or None.

    Args:
        described: As `describe_files` gives it.
        base: The folder that the paths count from.

    Raises:
        StorageError: If a file is there and cannot be read.
    """
    for name, facts in described.items():
        path = base / name
        # Earlier releases wrote sizes alone.
        known = facts if isinstance(facts, Mapping) else {"bytes": facts}
        wanted, wanted_digest = known.get("bytes"), known.get("sha256")
        if not isinstance(wanted, int):
            return f"{path}: found no size of it written down; required: one"
        if not path.is_file():
            return f"{path}: found no file; required: {wanted} bytes"
        size = path.stat().st_size
        if size != wanted:
            return f"{path}: found {size} bytes; required: {wanted} bytes"
        if wanted_digest is None:
            continue
        digest = describe_file(path)["sha256"]
        if digest != wanted_digest:
            return (
                f"{path}: cannot be read as it was written (found the SHA-256 {digest}; required: "
                f"{wanted_digest})"
            )
    return None


def digest_of_values(values: Mapping[str, object]) -> str:
    """Digest of JSON-like values."""
    return digest_of([json_text(values, sort_keys=True)])


def digest_of(parts: Iterable[str]) -> str:
    """Digest of a sequence of texts, each delimited."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", errors="surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()
