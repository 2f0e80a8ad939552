"""Builds the network that a configuration describes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from atari_bridge.networks.compact import (
    VectorDynamics,
    image_encoder,
    vector_backbone,
    vector_encoder,
)
from atari_bridge.networks.config import NetworkConfig
from atari_bridge.networks.interface import MuZeroNetwork
from atari_bridge.networks.layers import image_to_features, normalize_vector, vector_head
from atari_bridge.networks.residual import (
    ImageDynamics,
    image_backbone,
    image_representation,
    state_shape,
)
from atari_bridge.networks.scalars import ScalarSupport
from atari_bridge.networks.self_supervised import build_auxiliary
from atari_bridge.networks.value_prefix import ValuePrefix

# Width of a head's hidden layer: EfficientZero's, and one that costs little beside vectors.
_IMAGE_HEAD, _VECTOR_HEAD = 32, 64


def build_network(
    config: NetworkConfig, *, frame_shape: tuple[int, ...], num_actions: int, frame_stack: int = 1
) -> MuZeroNetwork:
    """Builds a network with fresh weights, drawn from torch's default generator.

    Args:
        config: Sizes.
        frame_shape: Of one frame, `(C, H, W)`, or `(D,)` of vectors.
        num_actions: A.
        frame_stack: S, frames of an observation; 1 where observations are vectors.

    Raises:
        ValueError: If the kind of network does not fit the observations.
    """
    is_image = len(frame_shape) == 3
    if is_image == (config.network == "dense"):
        required = "residual or compact" if is_image else "dense"
        raise ValueError(
            f"network: found {config.network!r} with observations of shape {frame_shape}; "
            f"required: {required}. Set network"
        )
    if is_image and min(frame_shape[1:]) < 8:
        raise ValueError(
            f"observations: found images of {frame_shape[1]}x{frame_shape[2]}; "
            "required: at least 8x8. Raise image_size"
        )
    shape = (frame_stack * frame_shape[0], *frame_shape[1:])
    is_residual, bins = config.network == "residual", config.support_bins
    parts = (_residual_parts if is_residual else _vector_parts)(config, shape, num_actions)
    network = MuZeroNetwork(
        observation_shape=shape,
        num_actions=num_actions,
        support=ScalarSupport(-config.support, config.support, bins),
        encoder=parts.encoder,
        step=parts.step,
        backbone=parts.backbone,
        policy_head=parts.head(num_actions),
        value_head=parts.head(bins),
        reward_head=None if config.value_prefix else parts.head(bins),
        value_prefix=_value_prefix(config, parts) if config.value_prefix else None,
        auxiliary=build_auxiliary(
            config.self_supervised,
            features=parts.features,
            frame=frame_shape,
            projection=config.projection_size,
            prediction=config.prediction_size,
        ),
        scale_hidden=config.scale_hidden,
    )
    # Weights in channels_last make 3x3 convolutions faster: on a CPU half the time of an encoding,
    # and a fifth less of an update's.
    if is_residual:
        convert_conv2d_weight_memory_format(network, torch.channels_last)
    return network


def compile_functions(network: MuZeroNetwork) -> MuZeroNetwork:
    """Applies `torch.compile` to a network's functions, in place; returns the network.

    Results are the same up to rounding, and checkpoints are unchanged; do not deep-copy a compiled
    network. `torch.compile` is not thread-safe: compile no network that one thread evaluates while
    another evaluates a compiled one. Needs a C++ compiler on the CPU, Triton on a GPU.
    """
    modules: list[tuple[nn.Module, tuple[str, ...]]]
    modules = [(network, ("representation", "prediction", "dynamics"))]
    if network.auxiliary is not None:
        modules.append((network.auxiliary, ("loss", "project")))
    for module, names in modules:
        for name in names:
            setattr(module, name, torch.compile(getattr(module, name)))
    return network


@dataclass(frozen=True)
class _Parts:
    """Modules of one kind of network.

    Attributes:
        encoder: See `MuZeroNetwork`.
        reduction: Hidden states to vectors, for the value prefix.
        reduced: Size of these vectors.
        step: See `MuZeroNetwork`.
        backbone: See `MuZeroNetwork`.
        head: Builds a head with so many outputs.
        head_width: Of the hidden layer of heads.
        features: Of a flattened hidden state.
    """

    encoder: nn.Module
    reduction: nn.Module
    reduced: int
    step: nn.Module
    backbone: nn.Module
    head: Callable[[int], nn.Module]
    head_width: int
    features: int


def _residual_parts(config: NetworkConfig, shape: tuple[int, ...], num_actions: int) -> _Parts:
    kind, image = config.normalization, (shape[0], shape[1], shape[2])
    encoder = image_representation(image, channels=config.channels, blocks=config.blocks, kind=kind)
    channels, height, width = state_shape(encoder, image)

    def head(outputs: int) -> nn.Module:
        reduction, features = image_to_features(channels, height * width, kind=kind)
        return nn.Sequential(
            reduction, vector_head(features, outputs, width=_IMAGE_HEAD, kind=kind)
        )

    reduction, reduced = image_to_features(channels, height * width, kind=kind)
    return _Parts(
        encoder=encoder,
        reduction=reduction,
        reduced=reduced,
        step=ImageDynamics(channels, num_actions, blocks=config.blocks, kind=kind),
        backbone=image_backbone(channels, blocks=config.blocks, kind=kind),
        head=head,
        head_width=_IMAGE_HEAD,
        features=channels * height * width,
    )


def _vector_parts(config: NetworkConfig, shape: tuple[int, ...], num_actions: int) -> _Parts:
    kind, size = config.normalization, config.hidden_size
    if len(shape) == 3:
        image = (shape[0], shape[1], shape[2])
        encoder = image_encoder(image, channels=config.channels, hidden_size=size, kind=kind)
    else:
        encoder = vector_encoder(shape[0], hidden_size=size, kind=kind)
    return _Parts(
        encoder=encoder,
        reduction=nn.Identity(),
        reduced=size,
        step=VectorDynamics(size, num_actions, kind=kind),
        backbone=vector_backbone(size, kind=kind),
        head=lambda outputs: vector_head(size, outputs, width=_VECTOR_HEAD, kind=kind),
        head_width=_VECTOR_HEAD,
        features=size,
    )


def _value_prefix(config: NetworkConfig, parts: _Parts) -> ValuePrefix:
    size, kind = config.lstm_size, config.normalization
    return ValuePrefix(
        parts.reduction,
        features=parts.reduced,
        size=size,
        horizon=config.prefix_horizon,
        head=nn.Sequential(
            normalize_vector(size, kind),
            nn.ReLU(inplace=True),
            vector_head(size, config.support_bins, width=parts.head_width, kind=kind),
        ),
    )
