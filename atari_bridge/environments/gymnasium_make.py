"""Makes one Gymnasium environment from its id, with helpful errors.

Atari games are not made here: Gymnasium's environments skip frames of their own.
"""

import importlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from atari_bridge.environments.games import atari_game_of_id, rom_name
from prefsearch.config.checks import closest
from prefsearch.config.user_code import UserCodeError, running_user_code

_FORM = re.compile(r"(?:(?P<space>[\w-]+)/)?(?P<name>[\w.-]+?)(?:-v(?P<version>\d+))?$")
_EXTRAS = {
    "gymnasium.envs.box2d": "gymnasium[box2d]",
    "gymnasium.envs.mujoco": "gymnasium[mujoco]",
    "gymnasium.envs.phys2d": "gymnasium[jax]",
    "gymnasium.envs.tabular": "gymnasium[jax]",
    "gymnasium.envs.classic_control": "gymnasium[classic-control]",
    "gymnasium.envs.toy_text": "gymnasium[toy-text]",
}
"""Extras to install for Gymnasium's own environments, by the module of their code."""


def make_environment(gymnasium_id: str) -> Any:
    """Makes one environment with its time limit, without Gymnasium's checks of every step.

    Args:
        gymnasium_id: As registered; "module:id" imports the module that registers it.

    Raises:
        ImportError: Without gymnasium, or what the environment needs; names what to install.
        ValueError: If the id is malformed or not known, is that of an Atari game, or the
            environment cannot be made.
    """
    module, name = _parts(gymnasium_id)
    _refuse_atari(gymnasium_id)
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(
            f"game {gymnasium_id!r}: found no gymnasium; required for environments with such an "
            "id. Install it by pip install 'prefsearch[atari]'"
        ) from error
    if module:
        _import_registering(gymnasium_id, module)
    if name.startswith("MinAtar/") and name not in gymnasium.registry:
        _register_minatar(gymnasium_id)
    if not _is_known(name, list(gymnasium.registry)):
        raise ValueError(_unknown(gymnasium_id, name, list(gymnasium.registry)))
    with warnings.catch_warnings(record=True) as caught:
        try:
            with running_environment(gymnasium_id, "made"):
                made = gymnasium.make(name, disable_env_checker=True)
        except UserCodeError as error:
            if isinstance(error.__cause__, ImportError | gymnasium.error.DependencyNotInstalled):
                raise _missing_extra(gymnasium_id, name, error.__cause__) from error.__cause__
            raise
    for warning in caught:  # not of an environment that could not be made
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return made


@contextmanager
def running_environment(gymnasium_id: str, doing: str) -> Iterator[None]:
    """Names the environment in exceptions of its code.

    Args:
        gymnasium_id: Of the environment.
        doing: For the message: "made", "reset", "stepped".

    Raises:
        UserCodeError: Instead of any exception but an interrupt.
    """
    what = f"game {gymnasium_id!r} could not be {doing}"
    remedy = "an environment that can. Mend it, or choose another"
    with running_user_code(what, required=remedy):
        yield


def _parts(gymnasium_id: str) -> tuple[str, str]:
    """Splits "module:id" into the module, or "", and the id.

    Raises:
        ValueError: If it has another form.
    """
    module, colon, name = gymnasium_id.rpartition(":")
    module_form = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module) is not None
    if _FORM.fullmatch(name) is None or bool(colon) != module_form:
        raise ValueError(
            f"game: found {gymnasium_id!r}; required: an id of the form 'Name-v1', "
            "'namespace/Name-v1', or 'module:Name-v1' with the module that registers it. Correct it"
        )
    return module, name


def _refuse_atari(gymnasium_id: str) -> None:
    game = atari_game_of_id(gymnasium_id)
    if game is None:
        return
    with suppress(ImportError):  # raised when the game is opened by its name
        rom_name(game)  # raises with the nearest name if there is no such game
    raise ValueError(
        f"game: found the gymnasium id {gymnasium_id!r} of an Atari game; required: the game's "
        "name, for gymnasium may skip frames and repeat actions of its own, on top of frame_skip "
        f"and repeat_action_probability. Write {game!r}"
    )


def _import_registering(gymnasium_id: str, module: str) -> None:
    """Imports the module of an id, which runs its code."""
    what = f"game {gymnasium_id!r}: the module {module!r} could not be imported"
    remedy = "a module that registers the environment. Install it, or correct its name"
    with running_user_code(what, required=remedy):
        importlib.import_module(module)


def _register_minatar(gymnasium_id: str) -> None:
    """Registers MinAtar's games, which importing it does not."""
    try:
        module = importlib.import_module("minatar.gym")
    except ImportError as error:
        raise ImportError(
            f"game {gymnasium_id!r}: found no MinAtar; required for its games. Install it by pip "
            "install 'prefsearch[minatar]'"
        ) from error
    module.register_envs()


def _is_known(name: str, registered: list[str]) -> bool:
    """Whether an id is registered; one without a version stands for the newest."""
    return name in registered or any(
        other.rpartition("-v")[0] == name and other.rpartition("-v")[2].isdigit()
        for other in registered
    )


def _unknown(gymnasium_id: str, name: str, registered: list[str]) -> str:
    """The message for an id that is not registered."""
    known = [other for other in registered if atari_game_of_id(other) is None]
    form = _FORM.fullmatch(name)
    assert form is not None, "checked by _parts"
    bare = name.rpartition("-v")[0] or name
    others = [other for other in known if other.rpartition("-v")[0] == bare][::-1]  # newest first
    near = others or closest(name, known, count=3)
    example = f", such as {', '.join(map(repr, near))}" if near else ""
    what = "no such version" if others else "no such environment"
    space = form["space"]
    if space is not None and not any(other.startswith(f"{space}/") for other in registered):
        what = f"nothing has registered a namespace {space!r}"
    return (
        f"game: found {gymnasium_id!r}, and {what}; required: an id that gymnasium knows{example}. "
        f"Correct it, or install the package that registers it and name its module: 'module:{name}'"
    )


def _missing_extra(gymnasium_id: str, name: str, error: BaseException) -> ImportError:
    """The error for an environment whose package is missing."""
    import gymnasium

    versions = (s for other, s in gymnasium.registry.items() if other.startswith(f"{name}-v"))
    spec = gymnasium.registry.get(name) or next(versions, None)
    place = str(spec.entry_point) if spec is not None else ""
    extra = next((needed for code, needed in _EXTRAS.items() if place.startswith(code)), None)
    missing = getattr(error, "name", None)
    message = " ".join(str(error).split())
    # Gymnasium's own advice comes first for environments that moved to other packages.
    if extra is not None and "gymnasium-robotics" not in message:
        remedy = f'Install it by pip install "{extra}"'
    elif "pip install" in message or "gymnasium-robotics" in message:
        remedy = "Install that, or choose another environment"
    else:
        remedy = f"Install it by pip install {missing}" if missing else "Install it"
    return ImportError(
        f"game {gymnasium_id!r}: {message}; required: the package that it runs on. {remedy}"
    )
