"""A replay as files: safetensors of bounded size and a JSON manifest, never pickles.

A loaded replay samples the same rows as the saved one, bit for bit: the tree of priorities is a
function of its leaves.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from atari_bridge.replay.replay import Replay
from prefsearch.storage.checkpoints import read_manifest, write_manifest
from prefsearch.storage.errors import naming_path
from prefsearch.storage.files import write_bytes_atomic

MANIFEST = "replay.json"
VERSION = 3
_KIND = "prefsearch-replay"
_LARGEST_FILE = 2**28  # where no bound is set; a file is assembled in memory
_HEADER = 8192  # most bytes of a file that are not numbers
_REMEDY = "Copy this checkpoint again, or go on from an earlier one, if one was kept"


def save_replay(replay: Replay, folder: Path, *, max_part_bytes: int | None = None) -> None:
    """Writes a replay into a folder that holds no other.

    Args:
        replay: To be saved.
        folder: Created if it is missing.
        max_part_bytes: Largest size of a file; None: no bound.

    Raises:
        ValueError: If the bound is too small, or the folder holds a replay.
        StorageError: If a file cannot be written.
    """
    bound = _LARGEST_FILE if max_part_bytes is None else max_part_bytes
    if bound < 2 * _HEADER:
        raise ValueError(f"max_part_bytes: found {bound}; required: at least {2 * _HEADER}")
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder / MANIFEST}: found a replay there; required: a new folder")
    with naming_path(folder, "write to"):
        folder.mkdir(parents=True, exist_ok=True)
    lengths: list[int] = []
    for number, part in enumerate(_frame_parts(replay.frame_items(), bound - _HEADER, lengths)):
        write_bytes_atomic(folder / f"frames-{number:05d}.safetensors", save({"bytes": part}))
    arrays = {**replay.state(), "frame_lengths": np.array(lengths, np.int64)}
    for number, part in enumerate(_row_parts(arrays, bound - _HEADER)):
        data = save({name: np.ascontiguousarray(array) for name, array in part.items()})
        write_bytes_atomic(folder / f"rows-{number:05d}.safetensors", data)
    write_manifest(folder / MANIFEST, kind=_KIND, version=VERSION, facts=replay.facts())


def load_replay(replay: Replay, folder: Path) -> None:
    """Reads what `save_replay` wrote into a replay of the same shapes and settings.

    All files are checked before the replay is changed.

    Raises:
        ValueError: If the folder holds no replay of this version, shapes and settings, or a file is
            missing or damaged; naming it.
    """
    manifest = read_manifest(
        folder / MANIFEST,
        kind=_KIND,
        version=VERSION,
        required=f"a saved replay with {MANIFEST}",
        remedy=_REMEDY,
    )
    for name, required in replay.facts().items():
        if manifest.get(name) != required:
            raise ValueError(
                f"{folder / MANIFEST}: found {name} {manifest.get(name)!r}; required: "
                f"{required!r}, of the replay to be filled. Keep the settings it was made with"
            )
    pieces: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("rows-*.safetensors")):
        for field, piece in _read(path).items():
            pieces.setdefault(field, []).append(piece)
    arrays = {field: np.concatenate(found) for field, found in pieces.items()}
    stream = (_read(path)["bytes"] for path in sorted(folder.glob("frames-*.safetensors")))
    try:
        replay.load_state(arrays, _items(stream, arrays["frame_lengths"]))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}. {_REMEDY}") from error


def _frame_parts(items: Iterator[bytes], size: int, lengths: list[int]) -> Iterator[np.ndarray]:
    """The items joined and cut into uint8 arrays of `size`; appends the items' lengths."""
    held = bytearray()
    for item in items:
        lengths.append(len(item))
        held += item
        while len(held) >= size:
            yield np.frombuffer(bytes(held[:size]), np.uint8)
            del held[:size]
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


def _row_parts(arrays: Mapping[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """The arrays, cut along their first axis so that each part has at most `size` bytes."""
    part: dict[str, np.ndarray] = {}
    left = size
    for name, array in arrays.items():
        row, at = max(1, array[:1].nbytes), 0  # bytes of one row
        if row > size:
            raise ValueError(
                f"max_part_bytes: found {size + _HEADER}; required: {row + _HEADER} or more, "
                f"since one row's {name} has {row} bytes"
            )
        while True:
            if left < row:
                yield part
                part, left = {}, size
            count = min(len(array) - at, left // row)
            part[name] = array[at : at + count]
            left -= count * row
            at += count
            if at == len(array):
                break
    yield part


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error}). {_REMEDY}") from error
