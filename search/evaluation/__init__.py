"""How a search is judged: records, metrics, scaling laws, figures and the report."""

from search.evaluation.divergence import (
    best_of_n_kl_bound,
    best_of_n_kl_estimate,
    kl_lower_bound_from_ranks,
    segment_kl_bound,
)
from search.evaluation.equal_cost import (
    difference_at_equal_cost,
    gain_at_equal_cost,
    interpolate_at,
    shared_cost_range,
)
from search.evaluation.figures import Curve, gain_curves, overoptimisation, search_tree
from search.evaluation.intervals import SeedInterval, interval_over_seeds, jackknife_values
from search.evaluation.metrics import (
    Interval,
    accuracy_from_margins,
    best_of_n_expectation,
    best_of_n_kl,
    bootstrap_interval,
    expected_calibration_error,
    paired_difference,
    pass_at_k,
    wilson_interval,
)
from search.evaluation.records import (
    StorageError,
    append_record,
    read_records,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from search.evaluation.report import Report
from search.evaluation.scaling import (
    BestOfNFit,
    FitRefusedError,
    LogLinearFit,
    Peak,
    best_of_n_from_kl,
    extrapolation_error,
    fit_best_of_n,
    fit_best_of_n_intervals,
    fit_log_linear,
)
from search.evaluation.tree_layout import SearchNode
from search.evaluation.verdicts import (
    count_verdicts,
    holm,
    power,
    seeds_needed,
    upper_deviation,
    verdict,
)

__all__ = [
    "BestOfNFit",
    "Curve",
    "FitRefusedError",
    "Interval",
    "LogLinearFit",
    "Peak",
    "Report",
    "SearchNode",
    "SeedInterval",
    "StorageError",
    "accuracy_from_margins",
    "append_record",
    "best_of_n_expectation",
    "best_of_n_from_kl",
    "best_of_n_kl",
    "best_of_n_kl_bound",
    "best_of_n_kl_estimate",
    "bootstrap_interval",
    "count_verdicts",
    "difference_at_equal_cost",
    "expected_calibration_error",
    "extrapolation_error",
    "fit_best_of_n",
    "fit_best_of_n_intervals",
    "fit_log_linear",
    "gain_at_equal_cost",
    "gain_curves",
    "holm",
    "interpolate_at",
    "interval_over_seeds",
    "jackknife_values",
    "kl_lower_bound_from_ranks",
    "overoptimisation",
    "paired_difference",
    "pass_at_k",
    "power",
    "read_records",
    "search_tree",
    "seeds_needed",
    "segment_kl_bound",
    "shared_cost_range",
    "upper_deviation",
    "verdict",
    "wilson_interval",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]
