"""A causal transformer without its head, and whether its attention supports tree masks.

Tokens of many branches share one cache, and a mask gives each its own prefix. That is exact where
attention reads plain keys and values, sliding windows included; linear attention, state spaces and
hybrids keep a running state instead. A model is supported if its cache is of a known kind and its
hidden states on a small tree equal those on each of its branches alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rewardmodel.prefix_cache.path_cache import PathCache
from rewardmodel.prefix_cache.row_cache import RowCache

_logger = logging.getLogger(__name__)
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUGH_TOLERANCE = 0.1  # half precision, where the order of additions shows


@dataclass(frozen=True)
class TreeMask:
    """Attention of the M real tokens of a forward pass [R, W], token by token.

    Attributes:
        queries: Place of each, row * W + column, M numbers.
        paths: For each the columns it attends to, in the order of their positions, itself last.
    """

    queries: Sequence[int] | np.ndarray
    paths: Sequence[np.ndarray]

    def visible(self, shape: torch.Size, *, end: int, window: int | None) -> Tensor:
        """True where attention is allowed, bool [R, W, end]."""
        paths = [path if window is None else path[-window:] for path in self.paths]
        queries = np.repeat(np.asarray(self.queries), [len(path) for path in paths])
        seen = torch.zeros(shape.numel() * end, dtype=torch.bool)
        seen[torch.from_numpy(queries * end + np.concatenate(paths))] = True
        return seen.view(*shape, end)


@dataclass(frozen=True)
class RowMask:
    """Every token attends to its whole row up to itself.

    Attributes:
        starts: Column of each row's first new token, R numbers.
    """

    starts: Sequence[int]

    def visible(self, shape: torch.Size, *, end: int, window: int | None) -> Tensor:
        """True where attention is allowed, bool [R, W, end]."""
        own = torch.tensor(self.starts)[:, None] + torch.arange(shape[1])  # [R, W]
        column = torch.arange(end)
        seen = column <= own[..., None]
        return seen if window is None else seen & (column > own[..., None] - window)


@dataclass(frozen=True)
class PathMask:
    """The new tokens of each row attend to its prefix and, causally, to each other.

    Attributes:
        counts: Tokens of each row's prefix, R numbers; they are its first columns. The new tokens
            are the last columns of all rows.
    """

    counts: Sequence[int]

    def visible(self, shape: torch.Size, *, end: int, window: int | None) -> Tensor:
        """True where attention is allowed, bool [R, W, end]."""
        known = torch.tensor(self.counts)[:, None]  # [R, 1]
        own = known + torch.arange(shape[1])  # [R, W]
        column = torch.arange(end)
        new = column >= end - shape[1]
        position = torch.where(new, known + column - (end - shape[1]), column)  # [R, end]
        held = (new | (column < known))[:, None]
        seen = held & (position[:, None] <= own[..., None])  # [R, W, end]
        return seen if window is None else seen & (position[:, None] > own[..., None] - window)


class MaskSpec(Protocol):
    """What the new tokens of a forward pass attend to."""

    def visible(self, shape: torch.Size, *, end: int, window: int | None) -> Tensor:
        """True where attention is allowed, bool [R, W, end].

        Args:
            shape: Of the new tokens, [R, W]; they are the last columns.
            end: Columns in all.
            window: Size of the sliding window, or None for full attention.
        """
        ...


class Backbone:
    """Runs a model's body over tokens whose prefixes are in a `RowCache`.

    Attributes:
        model: The whole model.
        shares: Whether branches may share a cache; if not, use `prefix_cache.rerun`.
        has_cache: Whether the model returns a cache of its own.
        head_makes_logits: Whether logits are the head on the last hidden state and no more; where
            they are not, the whole model runs and `run` returns them.
    """

    def __init__(self, model: Any, *, max_tokens: int, language_head: bool) -> None:
        """Tries a model on a small tree.

        Args:
            model: Causal language model or sequence classifier, adapters included.
            max_tokens: The longest prefix; windows at least so long have no effect.
            language_head: Whether next-token logits will be needed.
        """
        self.model = model
        plain = plain_model(model)
        self._body = plain.base_model
        self._windows: set[int | None] = {None}
        self._kinds = set(getattr(plain.config.get_text_config(), "layer_types", None) or ())
        self.head_makes_logits = True
        if language_head:
            self.head_makes_logits = self._check_head()
        self.shares = self._check_tree(max_tokens)

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] of hidden states [..., d]."""
        return self.model.get_output_embeddings()(hidden).float()

    def run(
        self, ids: Tensor, mask_spec: MaskSpec, positions: Tensor, cache: RowCache | PathCache
    ) -> tuple[Tensor, Tensor | None]:
        """Feeds tokens behind known prefixes; the cache determines where they go.

        Args:
            ids: int64 [R, W].
            mask_spec: What each token attends to.
            positions: int64 [R, W].
            cache: Of all tokens fed before.

        Returns:
            Hidden states [R, W, d] and, where the head alone does not make them, logits [R, W, V].
        """
        hidden, logits, _ = self._call(
            input_ids=ids,
            attention_mask=self.attention_mask(mask_spec, ids.shape, end=cache.end),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return hidden, logits

    def run_first(self, ids: Tensor, cache: RowCache) -> tuple[Tensor, Tensor | None]:
        """Feeds the beginnings of prefixes, padded on the right, to an empty cache; see `run`."""
        # Causal attention never looks to the right, so padding there needs no mask.
        hidden, logits, _ = self._call(input_ids=ids, past_key_values=cache, use_cache=True)
        return hidden, logits

    def run_alone(self, ids: Tensor, **options: Any) -> tuple[Tensor, Tensor | None, Any]:
        """Feeds tokens [R, W] without a mask; returns also the model's own cache."""
        return self._call(input_ids=ids, use_cache=True, **options)

    def attention_mask(self, mask_spec: MaskSpec, shape: torch.Size, *, end: int) -> Any:
        """Additive masks [R, 1, W, end]; a dict by kind of layer where layers differ."""
        dtype = self.model.dtype
        masks = {}
        for window in self._windows:
            seen = mask_spec.visible(shape, end=end, window=window).to(self.device)
            # A bool mask would be silently wrong under eager attention.
            mask = torch.zeros(seen.shape, dtype=dtype, device=self.device)
            masks[window] = mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
        if len(self._kinds) < 2:
            return next(iter(masks.values()))
        sliding = next((window for window in masks if window is not None), None)
        full = masks[None] if None in masks else masks[sliding]
        return {"full_attention": full, "sliding_attention": masks[sliding]}

    # ----------------------------------------------------------------------------------- internals

    def _call(self, **inputs: Any) -> tuple[Tensor, Tensor | None, Any]:
        if self.head_makes_logits:
            output = self._body(**inputs)
            return output.last_hidden_state, None, getattr(output, "past_key_values", None)
        output = self.model(**inputs, output_hidden_states=True)
        return output.hidden_states[-1], output.logits, getattr(output, "past_key_values", None)

    @torch.inference_mode()
    def _check_head(self) -> bool:
        """Whether the output embeddings on the body's hidden states give the model's logits."""
        head = self.model.get_output_embeddings()
        if head is None:
            return False
        ids = _check_ids(5, self.model)
        try:
            plain = self._body(input_ids=ids).last_hidden_state
            # Soft caps are nearly linear on the small logits of an untrained model, so the hidden
            # states are scaled up.
            hidden = plain * (100 / head(plain).abs().max().clamp(min=1e-3))
            bodies = []

            def amplify(module: Any, inputs: Any, output: Any) -> Any:
                bodies.append(output.last_hidden_state)
                output.last_hidden_state = hidden
                return output

            hook = self._body.register_forward_hook(amplify)
            try:
                logits = self.model(input_ids=ids).logits
            finally:
                hook.remove()
            made = head(hidden)
            # An adapter may give the body more than ids, as prompt tuning does.
            same = [body.shape == plain.shape and self._agree(body, plain) for body in bodies]
        except (RuntimeError, AttributeError):
            return False
        return all(same) and made.shape == logits.shape and self._agree(made, logits)

    @torch.inference_mode()
    def _check_tree(self, max_tokens: int) -> bool:
        """Determines the kind of cache and compares a small tree with its branches alone."""
        try:
            _, _, cache = self.run_alone(_check_ids(4, self.model))
        except (RuntimeError, ValueError, TypeError):  # an encoder, or a cache of another kind
            cache = None
        layers = getattr(cache, "layers", None) or []
        self.has_cache = bool(layers)
        kinds = {type(layer) for layer in layers}
        if not kinds or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
            self._warn(", ".join(sorted(kind.__name__ for kind in kinds)) or "no cache")
            return False
        windows = {int(layer.sliding_window) for layer in layers if layer.is_sliding}
        if len(windows) > 1:
            self._warn(f"windows of {sorted(windows)} tokens")
            return False
        if any(window < max_tokens for window in windows):
            self._windows = {*windows, *({None} if DynamicLayer in kinds else ())}
        # A window is checked beyond its length, where it has an effect.
        window = max((window for window in windows if window < max_tokens), default=0)
        ids = _check_ids(window + 9, self.model)
        backbone_end, branch = window + 4, window + 6
        first = torch.cat([ids[:, :branch], ids[:, -1:]], 1)  # leaves at branch, comes back last
        second = torch.cat([ids[:, :backbone_end], ids[:, branch : branch + 2]], 1)
        try:
            tree = self._small_tree(ids, backbone_end=backbone_end, branch=branch)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            _logger.debug("a tree in one cache", exc_info=True)
            self._warn(f"a mask of its own raises {type(error).__name__}")
            return False
        alone = torch.cat([self.run_alone(path)[0][:, -1] for path in (first, second)])
        off = float((tree.float() - alone.float()).abs().max())
        if not off <= self._tolerance(second, window):  # NaN is no agreement, either
            self._warn("hidden states on a tree differ from those of its branches alone")
            return False
        return True

    def _tolerance(self, ids: Tensor, window: int) -> float:
        """The tolerance of the hidden state after ids [1, T] on a tree.

        In a model of small weights a wrong mask moves it little. So the bound is a tenth of what
        one other token moves it by, be it the oldest visible one or the last one before the end; or
        the rounding error, if that is more.
        """
        others = ids.repeat(3, 1)
        for line, place in ((1, -window if window else 0), (2, -2)):
            others[line, place] = ids[0, 0] if ids[0, place] != ids[0, 0] else ids[0, 1]
        hidden = self.run_alone(others)[0][:, -1].float()
        moved = float((hidden[1:] - hidden[0]).abs().amax(-1).min())
        _, _, cache = self.run_alone(ids[:, :-2])
        pieces, _, _ = self.run_alone(ids[:, -2:], past_key_values=cache)
        rounding = 8 * float((pieces[0, -1].float() - hidden[0]).abs().max())
        scale = max(1.0, float(hidden.abs().max()))
        least = 2 * torch.finfo(self.model.dtype).eps * scale
        most = _TOLERANCES.get(self.model.dtype, _ROUGH_TOLERANCE) * scale
        return min(most, max(moved / 10, rounding, least))

    def _small_tree(self, ids: Tensor, *, backbone_end: int, branch: int) -> Tensor:
        """Hidden states [2, d] at the ends of two branches that share a cache row."""
        cache = RowCache(1, ids.shape[1])
        device = self.device
        cache.expect([backbone_end], backbone_end, device)
        self.run_first(ids[:, :backbone_end], cache)

        def feed(tokens: Tensor, paths: list[np.ndarray]) -> Tensor:
            cache.expect([len(paths)], len(paths), device)
            positions = torch.tensor([[len(path) - 1 for path in paths]], device=device)
            mask_spec = TreeMask(range(len(paths)), paths)
            return self.run(tokens, mask_spec, positions, cache)[0][0, -1]

        stem = np.arange(backbone_end)
        first = [np.append(stem, backbone_end + np.arange(count)) for count in (1, 2)]
        second = [np.append(stem, backbone_end + 2 + np.arange(count)) for count in (1, 2)]
        end_of_second = feed(ids[:, backbone_end : branch + 2], [*first, *second])
        end_of_first = feed(ids[:, -1:], [np.append(first[1], backbone_end + 4)])
        return torch.stack([end_of_first, end_of_second])

    def _agree(self, found: Tensor, expected: Tensor) -> bool:
        tolerance = _TOLERANCES.get(self.model.dtype, _ROUGH_TOLERANCE)
        scale = max(1.0, float(expected.abs().max()))
        return bool((found.float() - expected.float()).abs().max() < tolerance * scale)

    def _warn(self, why: str) -> None:
        _logger.warning(
            "%s cannot share a cache between branches (%s): each branch runs its prefix again",
            type(self.model).__name__,
            why,
        )


def plain_model(model: Any) -> Any:
    """The transformers model in a wrapper of peft, with its adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _check_ids(count: int, model: Any) -> Tensor:
    """Token ids [1, count] that exist in any vocabulary, with hardly any pattern."""
    rows = model.get_input_embeddings().weight.shape[0]
    return ((torch.arange(count, device=model.device) * 37 + 11) % rows)[None]
