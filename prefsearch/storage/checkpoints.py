"""Checkpoint manifests with digests, recovery of the newest intact one, and rotation.

A manifest is written last, so a folder without one is incomplete.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefsearch.storage.digests import describe_files, digest_of_values, find_damage
from prefsearch.storage.files import write_json_atomic
from prefsearch.storage.folders import remove_folder
from prefsearch.storage.json_text import read_json, to_plain

logger = logging.getLogger(__name__)


def write_manifest(path: Path, *, kind: str, version: int, facts: Mapping[str, object]) -> None:
    """Writes a manifest with the size and digest of every file in its folder.

    Args:
        path: Of the manifest, in the folder that it describes.
        kind: Of the folder, such as "prefsearch-replay".
        version: Of the format.
        facts: Further JSON-like values.
    """
    files = describe_files([path.parent], base=path.parent)
    manifest = to_plain({"format": kind, "version": version, **facts, "files": files})
    write_json_atomic(path, {**manifest, "sha256": digest_of_values(manifest)})


def read_manifest(
    path: Path, *, kind: str, version: int, required: str, remedy: str, check_files: bool = True
) -> dict[str, Any]:
    """Reads and validates a manifest and the files it lists.

    Args:
        path: Of the manifest.
        kind: As it was written.
        version: As it was written.
        required: Describes the folder that is required, for a path that is none.
        remedy: For a damaged folder.
        check_files: Whether to compare the files with their digests.

    Raises:
        ValueError: If there is no manifest, it is of another kind or version, or it or a file is
            missing or damaged; naming it.
    """
    folder = path.parent
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) if folder.is_dir() else ""
        what = f"a folder that holds {held or 'nothing'}" if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder}: found {what}; required: {required}")
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}). {remedy}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise ValueError(f"{path}: found JSON of something else; required: format {kind}")
    if manifest.get("version") != version:
        raise ValueError(
            f"{path}: found version {manifest.get('version')!r}; required: {version}. Read it with "
            "the release of prefsearch that wrote it"
        )
    digest = manifest.pop("sha256", None)
    if digest != digest_of_values(manifest):
        raise ValueError(f"{path}: found other values than were written. {remedy}")
    damage = find_damage(manifest["files"], base=folder) if check_files else None
    if damage is not None:
        raise ValueError(f"{damage}. {remedy}")
    return manifest


def numbered_checkpoints(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first.

    Args:
        folder: Of the checkpoints.
        name: Matches a checkpoint's name; its groups are numbers, the most significant first.
    """
    found = [(name.fullmatch(path.name), path) for path in folder.glob("*")]
    numbered = [(tuple(map(int, match.groups())), path) for match, path in found if match]
    return [path for _, path in sorted(numbered)]


def newest_intact(checkpoints: Sequence[Path], check: Callable[[Path], object]) -> Path | None:
    """The newest checkpoint that passes a check; damaged ones are logged.

    Args:
        checkpoints: Oldest first.
        check: Raises ValueError on a damaged checkpoint, naming the damage.

    Raises:
        ValueError: The first damage, if there are checkpoints and none is intact.
    """
    damaged: list[ValueError] = []
    for path in reversed(checkpoints):
        try:
            check(path)
        except ValueError as error:
            damaged.append(error)
            continue
        for error in damaged:
            logger.warning("%s. Going on from %s", error, path)
        return path
    if damaged:
        raise damaged[0]
    return None


def remove_oldest(checkpoints: Sequence[Path], *, keep: int) -> None:
    """Removes all checkpoints, given oldest first, but the last `keep`."""
    for path in checkpoints[:-keep]:
        remove_folder(path)
