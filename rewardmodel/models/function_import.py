"""Importing a user's function by `package.module:name` or `path/to/file.py:name`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from prefsearch.config.user_code import UserCodeError, running_user_code

_IMPORTED = "a module that can be imported. Correct that line"


def import_object(reference: str) -> Any:
    """Imports what `package.module:name` or `path/to/file.py:name` names.

    Raises:
        ValueError: If there is no such module or name in it, or the module raises; the message
            names its file and line.
    """
    if reference.endswith(".py"):
        raise ValueError(
            f"found {reference!r}, a Python file; required: the name of a function in it, too, "
            f"python:{reference}:NAME"
        )
    place, colon, name = reference.rpartition(":")
    if not (place and colon and name):
        raise ValueError(
            f"found {reference!r}; required: package.module:name or path/to/file.py:name"
        )
    module = _import_file(reference, place) if place.endswith(".py") else _import(reference, place)
    found: object = module
    for part in name.split("."):
        with running_user_code(f"{reference}: {name}", required="a function that can be read"):
            there = hasattr(found, part)  # modules may define __getattr__
            found = getattr(found, part, None)
        if not there:
            raise UserCodeError(f"{reference}: {place} has no {name}; name a function that it has")
    return found


def _import_file(reference: str, place: str) -> ModuleType:
    """Runs a file as a module."""
    path = Path(place).expanduser()
    # Under its own name: a file called json.py must not replace json.
    known_as = f"reward_function_{path.stem}"
    spec = importlib.util.spec_from_file_location(known_as, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserCodeError(f"{reference}: there is no file {place}; name one that is there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        with running_user_code(reference, required=_IMPORTED):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _import(reference: str, place: str) -> ModuleType:
    """Imports a module by its name."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's file in the current folder
    try:
        with running_user_code(reference, required=_IMPORTED):
            return importlib.import_module(place)
    except UserCodeError as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if missing is None or not f"{place}.".startswith(f"{missing}."):
            raise
        raise UserCodeError(
            f"{reference}: {cause}; required: a module that can be imported. Put its folder on "
            "PYTHONPATH, or write path/to/file.py:name"
        ) from cause
