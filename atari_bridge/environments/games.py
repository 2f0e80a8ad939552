"""Names of Atari games: ours ("ChopperCommand"), ale-py's ("chopper_command"), Gymnasium's."""

import re
from functools import cache

from prefsearch.config.checks import closest

ATARI_100K = (
    "Alien",
    "Amidar",
    "Assault",
    "Asterix",
    "BankHeist",
    "BattleZone",
    "Boxing",
    "Breakout",
    "ChopperCommand",
    "CrazyClimber",
    "DemonAttack",
    "Freeway",
    "Frostbite",
    "Gopher",
    "Hero",
    "Jamesbond",
    "Kangaroo",
    "Krull",
    "KungFuMaster",
    "MsPacman",
    "Pong",
    "PrivateEye",
    "Qbert",
    "RoadRunner",
    "Seaquest",
    "UpNDown",
)
"""The 26 games of the Atari 100k benchmark.

Source: Kaiser et al. 2020, "Model-Based Reinforcement Learning for Atari", in the spelling of its
later users.
"""

_GYMNASIUM_ID = re.compile(r"[/:]|-v\d+$")
_ATARI_ID = re.compile(
    r"(?P<space>ALE/)?(?P<game>\w+?)(?P<kind>-ram|-ramNoFrameskip|-ramDeterministic|NoFrameskip|"
    r"Deterministic)?(-v(?P<version>\d+))?$"
)


def names_gymnasium_id(name: str) -> bool:
    """Whether a name has the form of a Gymnasium id ("CartPole-v1", "MinAtar/Breakout-v1")."""
    return _GYMNASIUM_ID.search(name) is not None


def game_name(rom: str) -> str:
    """The name of ale-py's `rom`: "up_n_down" is "UpNDown".

    Source: the spelling of Gymnasium.
    """
    return rom.title().replace("_", "")


def rom_name(game: str) -> str:
    """ale-py's name of a game for one player: "UpNDown" is "up_n_down".

    Raises:
        ImportError: Without ale-py.
        ValueError: If there is no such game; names the nearest.
    """
    try:
        known = _playable()
    except ImportError as error:
        raise ImportError(
            f"game {game!r}: found no ale-py; required for Atari games. "
            "Install it by pip install 'prefsearch[atari]'"
        ) from error
    if game not in known:
        raise ValueError(
            f"game: found {game!r}; required: an Atari game's name such as "
            f"{', '.join(_nearest(game, known))}, or a gymnasium environment's id with its version,"
            f" such as {' or '.join(_nearest_ids(game))}. Correct the name"
        )
    return known[game]


def atari_game_of_id(gymnasium_id: str) -> str | None:
    """The Atari game of a Gymnasium id ("Pong" of "ALE/Pong-v5"), or None."""
    found = _ATARI_ID.match(gymnasium_id.rpartition(":")[2])
    if found is None:
        return None
    if found["space"] or found["kind"]:
        return found["game"]
    # "Pong-v4", but not Gymnasium's "Blackjack-v1".
    return found["game"] if found["version"] in ("0", "4") and _is_known(found["game"]) else None


def _is_known(game: str) -> bool:
    """Whether there is such a game; without ale-py, whether it is one of the 26."""
    try:
        return game in _playable()
    except ImportError:
        return game in ATARI_100K


@cache
def _playable() -> dict[str, str]:
    """ale-py's names by ours, of all games for one player.

    Four more need two players; loading them would end the process.

    Raises:
        ImportError: Without ale-py.
    """
    from ale_py import ALEInterface, roms

    paths = {rom: str(roms.get_rom_path(rom)) for rom in roms.get_all_rom_ids()}
    return {game_name(rom): rom for rom, path in paths.items() if ALEInterface.isSupportedROM(path)}


def _nearest(game: str, known: dict[str, str]) -> list[str]:
    """The nearest names, ignoring case and underscores."""
    near = closest(game.replace("_", ""), known, count=3)
    return [repr(name) for name in near] or ["'Pong'", "'Breakout'", "'MsPacman'"]


def _nearest_ids(name: str) -> list[str]:
    """The nearest Gymnasium ids, ignoring versions."""
    try:
        from gymnasium import registry
    except ImportError:
        registry = {}
    ids = {name.rpartition("-v")[0].lower(): name for name in list(registry)}  # the newest
    near = closest(name.lower().rpartition("-v")[0] or name, ids, count=2)
    found = [repr(ids[one]) for one in near if atari_game_of_id(ids[one]) is None]
    return found or ["'CartPole-v1'", "'MinAtar/Breakout-v1'"]
