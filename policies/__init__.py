"""Policies over text: what they propose, how a search plans with them, how they learn from it."""

from policies.collection import sample_responses, searched_demonstrations
from policies.kv_tree import KVTree
from policies.language_model import Policy, TinyModel, build_tiny_model, fine_tune
from policies.leaf_values import LeafValue, PartialReward, ValueHead, fit_value_head
from policies.methods import build_searcher
from policies.proposals import Proposal
from policies.search_policy import SearchPolicy, SearchResult
from policies.text_planning import TextPlanningModel

__all__ = [
    "KVTree",
    "LeafValue",
    "PartialReward",
    "Policy",
    "Proposal",
    "SearchPolicy",
    "SearchResult",
    "TextPlanningModel",
    "TinyModel",
    "ValueHead",
    "build_searcher",
    "build_tiny_model",
    "fine_tune",
    "fit_value_head",
    "sample_responses",
    "searched_demonstrations",
]
