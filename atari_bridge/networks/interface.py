"""The network of the MuZero family: representation, dynamics and prediction functions.

Encoder, dynamics step, heads and value prefix are modules passed in.
"""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from atari_bridge.networks.scalars import ScalarSupport
from atari_bridge.networks.self_supervised import SelfSupervisedLoss
from atari_bridge.networks.value_prefix import ValuePrefix

Latent: TypeAlias = dict[str, Tensor]
"""A hidden state: leaves `[B, ...]`. Always "hidden"; with a value prefix also "lstm_h" and
"lstm_c" `[B, L]` and "age" `[B]` int64, the steps of the prefix so far."""


@dataclass(frozen=True)
class Prediction:
    """Output of the prediction function f.

    Attributes:
        policy_logits: `[B, A]`.
        value_logits: `[B, bins]`.
    """

    policy_logits: Tensor
    value_logits: Tensor


@dataclass(frozen=True)
class Dynamics:
    """Output of the dynamics function g.

    Attributes:
        latent: The next state.
        reward_logits: `[B, bins]`, of the reward, or of the value prefix that includes it.
    """

    latent: Latent
    reward_logits: Tensor


class MuZeroNetwork(nn.Module):
    """Representation, dynamics and prediction of the MuZero family.

    Args:
        observation_shape: `(S*C, H, W)`, or `(D,)` of vectors.
        num_actions: A.
        support: Bins of values and rewards.
        encoder: Observations to hidden states `[B, ...]`.
        step: `(hidden, action [B] int64)` to the next hidden state.
        policy_head: Hidden states to `[B, A]`; as `value_head` and `reward_head` to `[B, bins]`.
        value_head: See `policy_head`.
        reward_head: See `policy_head`; None with a value prefix.
        value_prefix: In place of `reward_head`.
        backbone: Layers that policy and value share before their heads.
        auxiliary: Self-supervised loss, or None.
        scale_hidden: Scale each state to [0, 1].
    """

    def __init__(
        self,
        *,
        observation_shape: tuple[int, ...],
        num_actions: int,
        support: ScalarSupport,
        encoder: nn.Module,
        step: nn.Module,
        backbone: nn.Module,
        policy_head: nn.Module,
        value_head: nn.Module,
        reward_head: nn.Module | None,
        value_prefix: ValuePrefix | None,
        auxiliary: SelfSupervisedLoss | None,
        scale_hidden: bool,
    ) -> None:
        super().__init__()
        self.observation_shape, self.num_actions = observation_shape, num_actions
        self.support = support
        self.encoder, self.step, self.backbone = encoder, step, backbone
        self.policy_head, self.value_head = policy_head, value_head
        self.reward_head, self.value_prefix = reward_head, value_prefix
        self.auxiliary = auxiliary
        self._scale_hidden = scale_hidden

    def representation(self, observation: Tensor) -> Latent:
        """MuZero's h: encodes observations `[B, S*C, H, W]` in [0, 1], or `[B, D]`.

        Raises:
            ValueError: If observations have another shape than the network was built for.
        """
        if tuple(observation.shape[1:]) != self.observation_shape:
            raise ValueError(
                f"observation: found shape {list(observation.shape)}; required "
                f"[B, {', '.join(map(str, self.observation_shape))}], as the network was built "
                "for. Check frame_stack, image_size and grayscale"
            )
        hidden = self._scaled(self.encoder(observation))
        latent = {"hidden": hidden}
        if self.value_prefix is not None:
            latent |= self.value_prefix.begin(len(hidden), like=hidden)
        return latent

    def prediction(self, latent: Latent) -> Prediction:
        """MuZero's f: policy and value of states."""
        shared = self.backbone(latent["hidden"])
        return Prediction(self.policy_head(shared), self.value_head(shared))

    def dynamics(self, latent: Latent, action: Tensor) -> Dynamics:
        """MuZero's g: the next state and reward after `action` `[B]` int64 in each state."""
        hidden = self._scaled(self.step(latent["hidden"], action))
        if self.value_prefix is None:
            assert self.reward_head is not None
            return Dynamics({"hidden": hidden}, self.reward_head(hidden))
        logits, memory = self.value_prefix(hidden, latent)
        return Dynamics({"hidden": hidden, **memory}, logits)

    def _scaled(self, hidden: Tensor) -> Tensor:
        """Scales each row to [0, 1]. Source: MuZero, Appendix G."""
        if not self._scale_hidden:
            return hidden
        axes = tuple(range(1, hidden.ndim))
        # Not `aminmax`, which a CPU takes ten times as long over.
        low, high = hidden.amin(dim=axes, keepdim=True), hidden.amax(dim=axes, keepdim=True)
        return (hidden - low) / (high - low).clamp_min(1e-5)
