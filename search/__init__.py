"""The planning core: one model contract, one tree, interchangeable planners."""

from search.beam import BeamPlanner
from search.best_of_n import BestOfNPlanner
from search.config import PlannerConfig, build_planner
from search.gumbel import GumbelMuZeroPlanner
from search.mcts import run_mcts
from search.model import Embedding, PlanningModel, RootOutput, StepOutput
from search.muzero import MuZeroPlanner
from search.planner import Planner, SearchOutput
from search.qtransforms import (
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from search.tree import Tree

__all__ = [
    "BeamPlanner",
    "BestOfNPlanner",
    "Embedding",
    "GumbelMuZeroPlanner",
    "MuZeroPlanner",
    "Planner",
    "PlannerConfig",
    "PlanningModel",
    "RootOutput",
    "SearchOutput",
    "StepOutput",
    "Tree",
    "build_planner",
    "qtransform_by_min_max",
    "qtransform_by_parent_and_siblings",
    "qtransform_completed_by_mix_value",
    "run_mcts",
]
