from .finetuning.policy_kl import kl_to
from .finetuning.samples import sample_responses, searched_demonstrations
from .generation.language_model import Policy, build_tiny_model, fine_tune
from .generation.proposals import Proposal
from .generation.segment_tree import SegmentTree
from .generation.tiny_model import TinyModel
from .planning.leaf_values import LeafValue, PartialReward, Rollout
from .planning.methods import build_searcher
from .planning.options import METHOD_NAMES, SearchOptions
from .planning.planning_model import TextPlanningModel
from .planning.result import Candidate, SearchResult
from .planning.searcher import SearchPolicy
from .planning.segment_rewards import KLPenalty, ProcessReward, SegmentReward
from .planning.value_head import ValueHead, fit_value_head

__all__ = [
    "METHOD_NAMES",
    "Candidate",
    "KLPenalty",
    "LeafValue",
    "PartialReward",
    "Policy",
    "ProcessReward",
    "Proposal",
    "Rollout",
    "SearchOptions",
    "SearchPolicy",
    "SearchResult",
    "SegmentReward",
    "SegmentTree",
    "TextPlanningModel",
    "TinyModel",
    "ValueHead",
    "build_searcher",
    "build_tiny_model",
    "fine_tune",
    "fit_value_head",
    "kl_to",
    "sample_responses",
    "searched_demonstrations",
]
