"""A replay on disk: safetensors parts and a JSON page, and back to the last bit.

Columns lie in one file, and each lane's frames in one or several. Only what was written is saved.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from atari_bridge.replay.replay import Replay
from search.evaluation.records import naming_path, write_json_atomic

_PAGE, _VERSION = "replay.json", 1
_HEADER = 4096  # room for a safetensors header within a part


def save_replay(replay: Replay, folder: Path, *, max_part_bytes: int | None) -> None:
    """Writes a replay to a new folder, which the caller names when all is well.

    Args:
        replay: What to save.
        folder: Made if missing.
        max_part_bytes: Largest file, at least 1 MiB; None: no bound.

    Raises:
        StorageError: If the disk is full.
    """
    arrays: dict[str, np.ndarray] = {
        "written": replay.written,
        "ready": replay.ready,
        "tree": replay.tree.leaves,
    }
    for name, column in replay.columns.items():
        used = int(min(replay.written.max(initial=0), replay.ring))
        arrays[f"column_{name}"] = column[:, :used]
    for lane, store in enumerate(replay.stores):
        count = int(min(replay.written[lane], replay.ring))
        arrays |= {f"lane{lane}_{name}": a for name, a in store.arrays(count).items()}
    with naming_path(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        parts = _save_parts(arrays, folder, max_part_bytes)
    counts = {"greatest": replay.greatest, "sampleable": replay.num_sampleable}
    write_json_atomic(folder / _PAGE, {**_form(replay), **counts, "parts": parts})


def load_replay(replay: Replay, folder: Path) -> None:
    """Fills a new replay of the same form with what was saved.

    Raises:
        ValueError: If the folder holds no replay, one of another form or version, or a part is
            missing or damaged; naming the file.
    """
    path = folder / _PAGE
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); required: a saved replay") from error
    for name, required in _form(replay).items():
        if page.get(name) != required:
            raise ValueError(
                f"{path}, {name}: found {page.get(name)!r}; required: {required!r}, as this run is "
                "set up. Go on with the settings that the replay was saved with"
            )
    arrays = _load_parts(folder, page["parts"])
    replay.written[:], replay.ready[:] = arrays["written"], arrays["ready"]
    for name, column in replay.columns.items():
        saved = arrays[f"column_{name}"]
        column[:, : saved.shape[1]] = saved
    for lane, store in enumerate(replay.stores):
        prefix = f"lane{lane}_"
        store.load_arrays(
            {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        )
    leaves = arrays["tree"]
    # Every sum is that of its children, however the leaves came about: so it is the same again.
    replay.tree.set(np.arange(len(leaves)), leaves)
    replay.greatest, replay.num_sampleable = page["greatest"], page["sampleable"]


def _form(replay: Replay) -> dict[str, object]:
    """What both sides must agree on."""
    return {
        "version": _VERSION,
        "lanes": replay.lanes,
        "ring": replay.ring,
        "frame": list(replay.shape),
        "dtype": str(replay.dtype),
        "frame_stack": replay.frame_stack,
        "num_actions": replay.columns["policy"].shape[-1],
        "compressed": replay.stores[0].compressed,
        "block": replay.stores[0].block,
    }


def _save_parts(
    arrays: dict[str, np.ndarray], folder: Path, limit: int | None
) -> list[dict[str, object]]:
    """Writes arrays as flat bytes over as many files as the limit asks for."""
    pieces: list[tuple[str, np.ndarray]] = []
    shapes: dict[str, object] = {}
    room = None if limit is None else max(limit - _HEADER, 1 << 16)
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        shapes[name] = {"shape": list(array.shape), "dtype": str(array.dtype)}
        step = max(1, len(flat) if room is None else room)
        pieces += [
            (f"{name}.{n}", flat[at : at + step])
            for n, at in enumerate(range(0, max(1, len(flat)), step))
        ]
    files: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, piece in pieces:
        # Short headers: a part holds few arrays when parts are small.
        if files[-1] and room is not None and (size + len(piece) > room or len(files[-1]) >= 40):
            files.append({})
            size = 0
        files[-1][name] = piece
        size += len(piece)
    written: list[dict[str, object]] = []
    for n, content in enumerate(files):
        name = f"part-{n:04d}.safetensors"
        save_file(content, folder / name)
        written.append({"file": name, "bytes": (folder / name).stat().st_size})
    written[0]["arrays"] = shapes
    return written


def _load_parts(folder: Path, parts: list[dict[str, object]]) -> dict[str, np.ndarray]:
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for part in parts:
        path = folder / str(part["file"])
        found = path.stat().st_size if path.is_file() else None
        if found != part["bytes"]:
            what = "no file" if found is None else f"{found} bytes"
            raise ValueError(
                f"{path}: found {what}; required: {part['bytes']} bytes. Copy it again"
            )
        try:
            content = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error
        for key, piece in content.items():
            name, _, number = key.rpartition(".")
            pieces.setdefault(name, {})[int(number)] = piece
    shapes = parts[0]["arrays"]
    assert isinstance(shapes, dict)
    arrays: dict[str, np.ndarray] = {}
    for name, form in shapes.items():
        flat = np.concatenate([pieces[name][n] for n in sorted(pieces[name])])
        arrays[name] = flat.view(np.dtype(form["dtype"])).reshape(form["shape"])
    return arrays
