"""Settings composed of nested dataclasses, with flat names for flags and YAML keys.

    @dataclass
    class TrainArgs:
        dataset: str = ""
        optim: OptimConfig = field(default_factory=OptimConfig)

has the flags `--dataset`, `--learning_rate` and so on. A name that several parts have, such as
`seed`, is one setting that all of them get.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from prefsearch.config.checks import field_hint

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
# Where a run is, whether it is continued, and where its model is uploaded.
_OUTSIDE = ("out", "resume", "hub_model_id", "hub_private")


@dataclass(frozen=True)
class Setting:
    """One setting of a class of settings.

    Attributes:
        name: Of the flag and the YAML key.
        hint: Its type, with bounds.
        default: None where there is none.
        help: From the docstring of its class.
    """

    name: str
    hint: object
    default: object
    help: str


def settings_of_class(config: "type[DataclassInstance]") -> dict[str, Setting]:
    """The settings of a dataclass and of its parts, by name."""
    found: dict[str, Setting] = {}
    parts: dict[str, Setting] = {}
    described = _described(config)
    for field in dataclasses.fields(config):
        hint = field_hint(config, field.name)
        default = _default(field)
        if dataclasses.is_dataclass(hint):
            for name, setting in settings_of_class(typing.cast(type, hint)).items():
                own = setting if default is None else _with_default(setting, default)
                parts.setdefault(name, own)
        else:
            about = described.get(field.name, "")
            found[field.name] = Setting(field.name, hint, default, about)
    return {**found, **{name: one for name, one in parts.items() if name not in found}}


def build(config: type[Config], /, **values: object) -> Config:
    """Builds nested settings from flat values.

    Raises:
        ValueError: If a value is wrong.
        TypeError: If there is no such setting.
    """
    if unknown := values.keys() - settings_of_class(config).keys():
        raise TypeError(f"{config.__name__} has no {', '.join(sorted(unknown))}")
    return _build(config, values, None)


def change(settings: Config, /, **values: object) -> Config:
    """Copies settings with some flat values replaced."""
    return _build(type(settings), values, settings)


def flatten(settings: "DataclassInstance") -> dict[str, Any]:
    """Flattens nested settings to a mapping from name to value."""
    found: dict[str, object] = {}
    parts: dict[str, object] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts |= flatten(value)
        else:
            found[field.name] = value
    return {**found, **{name: value for name, value in parts.items() if name not in found}}


def run_settings(args: "DataclassInstance") -> dict[str, Any]:
    """The settings that a run's results depend on: all but its output folders."""
    return {name: value for name, value in flatten(args).items() if name not in _OUTSIDE}


def _build(config: type[Config], values: Mapping[str, object], base: object) -> Config:
    """Makes settings; what is not given is as in `base`, or the default."""
    given: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        hint = field_hint(config, field.name)
        current = _default(field) if base is None else getattr(base, field.name)
        if dataclasses.is_dataclass(hint):
            given[field.name] = _build(typing.cast(Any, hint), values, current)
        elif field.name in values:
            value = values[field.name]
            if typing.get_origin(hint) is tuple and isinstance(value, list):
                value = tuple(value)
            given[field.name] = value
        elif base is not None:
            given[field.name] = current
    return config(**given)


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _with_default(setting: Setting, part: Any) -> Setting:
    return dataclasses.replace(setting, default=flatten(part)[setting.name])


def _described(config: type) -> dict[str, str]:
    """The help of each field, from the docstrings of a dataclass and its bases."""
    described: dict[str, str] = {}
    for base in reversed(config.__mro__):
        _, _, attributes = (base.__doc__ or "").partition("Attributes:")
        for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", attributes, re.MULTILINE):
            described[name] = " ".join(text.split()).replace("`", "")
    return described
