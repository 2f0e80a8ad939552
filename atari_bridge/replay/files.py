"""A replay as files: safetensors parts of bounded size and a JSON manifest, never pickles.

The manifest comes last, so a folder without one is no replay. What is read back draws the same rows
as what was written, to the last bit: the tree of priorities is a function of its leaves. Folders
appear under their final name by the caller's doing. This file does not know what rows mean.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from atari_bridge.replay.replay import Replay
from prefsearch.storage.files import naming_path, write_bytes_atomic, write_json_atomic
from prefsearch.storage.json_reading import read_json

MANIFEST = "replay.json"
VERSION = 2
_FORMAT = "prefsearch-replay"
_DEFAULT_PART = 16_000_000
_LARGEST_PART = 2**28  # where no bound is asked for; a part is put together in memory
_HEADER = 8192  # most bytes of a part that are not numbers
_REMEDY = "Copy this checkpoint again, or go on from an earlier one, if one was kept"


def save_replay(
    replay: Replay, folder: Path, *, max_part_bytes: int | None = _DEFAULT_PART
) -> None:
    """Writes a replay into a folder that holds no other.

    Args:
        replay: What to save.
        folder: Where; made if it is missing.
        max_part_bytes: Greatest size of one file; None: no bound.

    Raises:
        ValueError: If the bound is too small, or the folder holds a replay.
        StorageError: If a file cannot be written.
    """
    bound = _LARGEST_PART if max_part_bytes is None else max_part_bytes
    if bound < 2 * _HEADER:
        raise ValueError(f"max_part_bytes: found {bound}; required: at least {2 * _HEADER}")
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder / MANIFEST}: found a replay there; required: a new folder")
    with naming_path(folder, "write to"):
        folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, int]] = {}
    lengths: list[int] = []
    for number, part in enumerate(_frame_parts(replay.frame_items(), bound - _HEADER, lengths)):
        parts |= _write(folder / f"frames-{number:05d}.safetensors", {"bytes": part})
    arrays = {**replay.state(), "frame_lengths": np.array(lengths, np.int64)}
    for number, held in enumerate(_row_parts(arrays, bound - _HEADER)):
        parts |= _write(folder / f"rows-{number:05d}.safetensors", held)
    facts = {"format": _FORMAT, "version": VERSION, **replay.facts(), "rows": len(arrays["leaf"])}
    write_json_atomic(folder / MANIFEST, {**facts, "parts": parts})


def load_replay(replay: Replay, folder: Path) -> None:
    """Reads what `save_replay` wrote into a replay of the same shapes and settings.

    All files are checked before anything of the replay is changed.

    Raises:
        ValueError: If the folder is none of this version, of other shapes or settings, or a part
            is missing, cut short or damaged; naming the file, what was found and is required.
    """
    manifest = _read_manifest(folder / MANIFEST)
    for name, required in replay.facts().items():
        if manifest.get(name) != required:
            raise ValueError(
                f"{folder / MANIFEST}: found {name} {manifest.get(name)!r}; required: "
                f"{required!r}, of the replay to be filled. Keep the settings it was made with"
            )
    parts: Mapping[str, Mapping[str, int]] = manifest["parts"]
    for name, facts in parts.items():
        _checked_bytes(folder / name, facts)
    pieces: dict[str, list[np.ndarray]] = {}
    for name in sorted(parts):
        if name.startswith("rows-"):
            for field, piece in _read(folder / name, parts[name]).items():
                pieces.setdefault(field, []).append(piece)
    arrays = {field: np.concatenate(found) for field, found in pieces.items()}
    missing = replay.state().keys() - arrays.keys()
    if missing or len(arrays["leaf"]) != manifest.get("rows"):
        raise ValueError(
            f"{folder / MANIFEST}: found parts that hold no {', '.join(sorted(missing)) or 'rows'};"
            f" required: {manifest.get('rows')} rows with all fields. {_REMEDY}"
        )
    stream = (
        _read(folder / name, parts[name])["bytes"]
        for name in sorted(parts)
        if name.startswith("frames-")
    )
    try:
        replay.load_state(arrays, _items(stream, arrays["frame_lengths"]))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}. {_REMEDY}") from error


def _frame_parts(items: Iterator[bytes], room: int, lengths: list[int]) -> Iterator[np.ndarray]:
    """The items one after another, cut into uint8 arrays of `room`; notes the items' lengths."""
    held = bytearray()
    for item in items:
        lengths.append(len(item))
        held += item
        while len(held) >= room:
            yield np.frombuffer(bytes(held[:room]), np.uint8)
            del held[:room]
    if held:
        yield np.frombuffer(bytes(held), np.uint8)


def _items(stream: Iterator[np.ndarray], lengths: np.ndarray) -> Iterator[bytes]:
    """The items that `_frame_parts` joined and cut."""
    held = bytearray()
    for length in lengths.tolist():
        while len(held) < length:
            part = next(stream, None)
            if part is None:
                raise ValueError(f"found {len(held)} bytes of the last frames; required: {length}")
            held += part.tobytes()
        yield bytes(held[:length])
        del held[:length]


def _row_parts(arrays: Mapping[str, np.ndarray], room: int) -> Iterator[dict[str, np.ndarray]]:
    """The arrays, cut along their first axis so that each part has at most `room` bytes."""
    part: dict[str, np.ndarray] = {}
    left = room
    for name, array in arrays.items():
        size, at = max(1, array[:1].nbytes), 0  # bytes of one row
        if size > room:
            raise ValueError(
                f"max_part_bytes: found {room + _HEADER}; required: {size + _HEADER} or more, "
                f"since one row's {name} has {size} bytes"
            )
        while True:
            if left < size:
                yield part
                part, left = {}, room
            count = min(len(array) - at, left // size)
            part[name] = array[at : at + count]
            left -= count * size
            at += count
            if at == len(array):
                break
    yield part


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Writes one part; returns its line of the manifest."""
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_bytes_atomic(path, data)
    return {path.name: {"bytes": len(data), "crc32": zlib.crc32(data)}}


def _checked_bytes(path: Path, facts: Mapping[str, int]) -> bytes:
    """The bytes of a part, if they are what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(
            f"{path}: found no file; required: {facts['bytes']} bytes. {_REMEDY}"
        ) from None
    if len(data) != facts["bytes"]:
        raise ValueError(
            f"{path}: found {len(data)} bytes; required: {facts['bytes']} bytes. {_REMEDY}"
        )
    if zlib.crc32(data) != facts["crc32"]:
        raise ValueError(
            f"{path}: found the checksum {zlib.crc32(data)}; required: {facts['crc32']}. {_REMEDY}"
        )
    return data


def _read(path: Path, facts: Mapping[str, int]) -> dict[str, np.ndarray]:
    try:
        return load(_checked_bytes(path, facts))
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}). {_REMEDY}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """Reads the manifest, if it is one of this version."""
    folder = path.parent
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) if folder.is_dir() else ""
        what = f"a folder that holds {held or 'nothing'}" if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder}: found {what}; required: a saved replay with {MANIFEST}")
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}). {_REMEDY}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(f"{path}: found JSON of something else; required: format {_FORMAT}")
    if manifest.get("version") != VERSION:
        raise ValueError(
            f"{path}: found version {manifest.get('version')!r}; required: {VERSION}. Read it with "
            "the release of prefsearch that wrote it"
        )
    return manifest
