"""Encode selection rules as plain numbers, for the compiled backends of the search.

Pairs of rules without such a form (a user's own function or Q-transform) run in torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from search.qtransforms import (
    QTransform,
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.selection import (
    ActionSelection,
    EfficientZeroSelection,
    HalvingSelection,
    ImprovedPolicySelection,
    PuctSelection,
    StochasticSelection,
)

# Compiled kernels are stored with these numbers in them: to change one, touch kernels.py as well.
PUCT, EFFICIENT, HALVING, IMPROVED = range(4)
MIN_MAX, SIBLINGS, MIXED = range(3)
TRANSFORMS: tuple[Callable[..., Tensor], ...] = (
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
"""The Q-transforms by number."""


@dataclass(frozen=True)
class Rules:
    """A pair of selection rules and all their numbers.

    Attributes:
        root_rule: PUCT, EFFICIENT or HALVING.
        transform: MIN_MAX, SIBLINGS or MIXED.
        options: The Q-transform's keyword arguments, defaults filled in.
        num_decisions: Actions that are not chance outcomes; None for all.
        pb_c_init: c1 of PUCT.
        pb_c_base: c2 of PUCT.
        value_delta_max: EfficientZero's least denominator.
        halving: The root's rule where it is HALVING, with its tensors.
    """

    root_rule: int
    transform: int = SIBLINGS
    options: Mapping[str, float] = field(default_factory=dict[str, float])
    num_decisions: int | None = None
    pb_c_init: float = 0.0
    pb_c_base: float = 1.0
    value_delta_max: float = 0.0
    halving: HalvingSelection | None = None

    @property
    def rule(self) -> int:
        """The rule below the root: PUCT, EFFICIENT or IMPROVED."""
        return IMPROVED if self.root_rule == HALVING else self.root_rule

    def decisions(self, num_actions: int) -> int:
        """How many of `num_actions` are no chance outcomes."""
        return num_actions if self.num_decisions is None else self.num_decisions

    def option(self, name: str, default: float = 0.0) -> float:
        """A number of the Q-transform, or the default where it has none of that name."""
        return float(self.options.get(name, default))


def encode_rules(root: ActionSelection, interior: ActionSelection) -> Rules | None:
    """The numbers of a pair of rules, or None where they have no compiled form."""
    if isinstance(root, HalvingSelection) and isinstance(interior, ImprovedPolicySelection):
        decoded = _decode(root.qtransform)
        if decoded is None or decoded != _decode(interior.qtransform):
            return None
        return Rules(HALVING, *decoded, halving=root)
    if root is not interior and root != interior:
        return None
    num_decisions = None
    if isinstance(root, StochasticSelection):
        root, num_decisions = root.decision, root.num_decisions
    if isinstance(root, EfficientZeroSelection):
        rules = Rules(EFFICIENT, value_delta_max=root.value_delta_max)
    elif isinstance(root, PuctSelection) and (decoded := _decode(root.qtransform)) is not None:
        rules = Rules(PUCT, *decoded, num_decisions=num_decisions)
    else:
        return None
    return replace(rules, pb_c_init=root.pb_c_init, pb_c_base=root.pb_c_base)


def _decode(qtransform: QTransform) -> tuple[int, dict[str, float]] | None:
    """A known Q-transform's number and keyword arguments, through any `functools.partial`."""
    options: dict[str, float | None] = {}
    if isinstance(qtransform, partial):
        if qtransform.args:
            return None
        options = dict(qtransform.keywords)
        qtransform = qtransform.func
    if qtransform not in TRANSFORMS:
        return None
    transform = TRANSFORMS.index(qtransform)
    known = dict(qtransform.__kwdefaults__ or {})
    if transform == MIN_MAX:
        known |= {"min_value": None, "max_value": None}
    filled = {name: value for name, value in (known | options).items() if value is not None}
    # Unknown and missing arguments, and bounds out of order, are reported by the search in torch.
    if filled.keys() != known.keys():
        return None
    if transform == MIN_MAX and not filled["max_value"] > filled["min_value"]:
        return None
    return transform, filled
