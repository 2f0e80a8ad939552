from .backends.memory import release_memory
from .mcts import run_mcts
from .model import Embedding, PlanningModel, RootOutput, StepOutput
from .planners.action_distributions import ActionDistribution, CategoricalActions, GaussianActions
from .planners.base import Planner, SearchOutput
from .planners.beam import BeamPlanner
from .planners.best_of_n import BestOfNPlanner
from .planners.controlled_decoding import ControlledDecodingPlanner
from .planners.gumbel import GumbelMuZeroPlanner
from .planners.muzero import MuZeroPlanner
from .planners.registry import PLANNER_NAMES, build_planner, planner_name, planner_settings
from .planners.rejection import RejectionPlanner
from .planners.sampled import (
    SampledModel,
    SampledOutput,
    SampledPlanner,
    SampledPlanningModel,
    SampledRootOutput,
    SampledStepOutput,
    sampled_policy_loss,
)
from .planners.stochastic import (
    AfterstateOutput,
    StochasticMuZeroPlanner,
    StochasticPlanningModel,
)
from .qtransforms import (
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from .reuse import keep_subtree
from .simulators.exact import ExactModel, LeafEvaluator, UniformRollouts, ZeroValues
from .simulators.interface import CloneableEnvironment, Simulator, Snapshot, Transition
from .tree import Tree

__all__ = [
    "PLANNER_NAMES",
    "ActionDistribution",
    "AfterstateOutput",
    "BeamPlanner",
    "BestOfNPlanner",
    "CategoricalActions",
    "CloneableEnvironment",
    "ControlledDecodingPlanner",
    "Embedding",
    "ExactModel",
    "GaussianActions",
    "GumbelMuZeroPlanner",
    "LeafEvaluator",
    "MuZeroPlanner",
    "Planner",
    "PlanningModel",
    "RejectionPlanner",
    "RootOutput",
    "SampledModel",
    "SampledOutput",
    "SampledPlanner",
    "SampledPlanningModel",
    "SampledRootOutput",
    "SampledStepOutput",
    "SearchOutput",
    "Simulator",
    "Snapshot",
    "StepOutput",
    "StochasticMuZeroPlanner",
    "StochasticPlanningModel",
    "Transition",
    "Tree",
    "UniformRollouts",
    "ZeroValues",
    "build_planner",
    "keep_subtree",
    "planner_name",
    "planner_settings",
    "qtransform_by_min_max",
    "qtransform_by_parent_and_siblings",
    "qtransform_completed_by_mix_value",
    "release_memory",
    "run_mcts",
    "sampled_policy_loss",
]
