"""Several adapters on one shared base: ensemble members that cost little memory.

An adapter is activated before its member scores, so members are not thread-safe.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from rewardmodel.data.conversation import Prompt, Reply
from rewardmodel.interface import Finished, ScoringSession
from rewardmodel.models.multi_head import reward_heads
from rewardmodel.models.sequence import SequenceRewardModel, load_scorer, open_encoder
from rewardmodel.pretrained.adapters import adapter_folder, require_adapter_weights
from rewardmodel.pretrained.config_fields import read_own_settings, shift_of
from rewardmodel.pretrained.files import check_adapter_files
from rewardmodel.pretrained.input_format import ChosenFormat
from rewardmodel.pretrained.tokenization import load_tokenizer
from rewardmodel.pretrained.weights import without_doubled_warnings


def shared_base(sources: Sequence[str]) -> str | None:
    """The base that all folders are one-label adapters of, or None."""
    if len(sources) < 2 or not all(map(_is_local, sources)) or any(map(reward_heads, sources)):
        return None
    kinds = [check_adapter_files(Path(source)) for source in sources]
    found = {(kind.get("base_model_name_or_path"), kind.get("task_type")) for kind in kinds}
    base, task = found.pop()
    return base if not found and task == "SEQ_CLS" else None


def _is_local(source: str) -> bool:
    return Path(source).is_dir() and adapter_folder(source) is not None


class _Adapted:
    """Scores with one adapter of a model, which is activated first, less its shift."""

    def __init__(self, scorer: SequenceRewardModel, name: str, shift: float, inner: Any) -> None:
        self._scorer, self.name, self._shift, self._inner = scorer, name, shift, inner

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Reply], *, finished: Finished = True
    ) -> Tensor:
        """Scores responses with this adapter, float32 [B]; see `RewardModel`."""
        self._activate()
        return self._inner.score(prompts, responses, finished=finished) - self._shift

    def _activate(self) -> None:
        if self._scorer.model.active_adapter != self.name:
            self._scorer.model.set_adapter(self.name)


class AdapterMember(_Adapted):
    """One adapter of a model as a `SessionRewardModel`."""

    def __init__(self, scorer: SequenceRewardModel, name: str, shift: float = 0.0) -> None:
        """Takes a model with several adapters, the name of one, and the shift of its scores."""
        super().__init__(scorer, name, shift, scorer)
        self.encoder = scorer.encoder

    def session(self) -> ScoringSession:
        """Starts a session of this adapter."""
        self._activate()
        return _AdapterSession(self._scorer, self.name, self._shift, self._scorer.session())


class _AdapterSession(_Adapted):
    """A session that activates its adapter before it scores."""

    @property
    def forward_tokens(self) -> int:
        """See `ScoringSession`."""
        return self._inner.forward_tokens

    def keep(self, prompts: Collection[Prompt]) -> None:
        """See `ScoringSession`."""
        self._inner.keep(prompts)


def load_adapter_members(
    sources: Sequence[str],
    *,
    max_length: int | None = None,
    batch_size: int = 128,
    input_format: ChosenFormat = "auto",
) -> list[AdapterMember]:
    """Loads adapters of one base, which is loaded once; length and format default to the first's.

    Raises:
        ValueError: If they are not all local reward adapters of the same base with one vocabulary,
            or one cannot be loaded.
    """
    if len(sources) > 1 and shared_base(sources) is None:
        raise ValueError(
            f"{', '.join(sources)} are not all reward adapters of one base; required: folders "
            "whose adapter_config.json name the same base_model_name_or_path and the task SEQ_CLS, "
            "each with one head. Load them as separate members"
        )
    first = sources[0]
    model = load_scorer(first, init_head=False)
    shifts = [shift_of(model.config)]  # the first adapter's, not the shared model's
    model.config.reward_shift = 0.0
    names = [str(model.active_adapter)]
    encoder = open_encoder(first, model, max_length, input_format=input_format, warns=True)
    vocabulary = encoder.tokenizer.get_vocab()
    for number, source in enumerate(sources[1:], start=1):
        if load_tokenizer(source).get_vocab() != vocabulary:
            raise ValueError(
                f"{source} has another vocabulary than {first}; required: the same, since they "
                "share a base. Load them as separate members"
            )
        names.append(f"member{number}")
        _add_adapter(model, source, names[-1])
        own = read_own_settings(Path(source) / "config.json")
        shifts.append(float(own.get("reward_shift") or 0.0))
    scorer = SequenceRewardModel(model, encoder, batch_size=batch_size)
    return [AdapterMember(scorer, *member) for member in zip(names, shifts, strict=True)]


def _add_adapter(model: PreTrainedModel, source: str, name: str) -> None:
    """Loads one more adapter, its head included, on a model."""
    check_adapter_files(Path(source))
    try:
        with without_doubled_warnings():
            model.load_adapter(source, adapter_name=name, use_safetensors=True)
    except Exception as error:
        raise ValueError(
            f"{source}: the adapter does not fit the base of the others "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        ) from error
    require_adapter_weights(Path(source), model, name=name)
    # Adapters are loaded on the device of the base; dropout of a new one is on.
    model.eval()
