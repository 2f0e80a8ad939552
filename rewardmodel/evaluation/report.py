"""A reward model's evaluation on disk: JSON, figures, and an HTML report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefsearch.report.page import Report
from prefsearch.statistics.intervals import Interval
from prefsearch.storage.files import write_json_atomic
from rewardmodel.evaluation.accuracy import RewardEvaluation
from rewardmodel.evaluation.agreement import EnsembleAgreement
from rewardmodel.evaluation.batch_invariance import BatchInvariance
from rewardmodel.evaluation.benchmarks.reward_bench2 import RewardBench2Score
from rewardmodel.evaluation.benchmarks.rewardbench import RewardBenchScore, SubsetScore
from rewardmodel.evaluation.figures import (
    draw_length_curve,
    draw_reliability,
    draw_risk_coverage,
    draw_strata,
)
from rewardmodel.evaluation.length.edits import EditAccuracy
from rewardmodel.evaluation.length.probes import LengthProbe
from rewardmodel.evaluation.strata import Stratum

BenchmarkScore = RewardBenchScore | RewardBench2Score


@dataclass(frozen=True)
class EvaluationRecord:
    """All figures of one reward model; those not measured are None.

    Attributes:
        settings: What was measured on what, with every seed.
        environment: Versions and commit.
        pairs: On preference pairs.
        baselines: Accuracies of the baselines on the same pairs, by name.
        benchmark: On RewardBench.
        agreement: Of an ensemble's members.
        edits: On human edits.
        probe: On cut and padded replies.
        invariance: Between scores alone and in a batch.
    """

    settings: Mapping[str, object]
    environment: Mapping[str, object] = field(default_factory=dict)
    pairs: RewardEvaluation | None = None
    baselines: Mapping[str, Interval] = field(default_factory=dict)
    benchmark: BenchmarkScore | None = None
    agreement: EnsembleAgreement | None = None
    edits: EditAccuracy | None = None
    probe: LengthProbe | None = None
    invariance: BatchInvariance | None = None


def write_evaluation(record: EvaluationRecord, folder: str | Path, *, title: str) -> Path:
    """Writes `evaluation.json`, `figures/` and `report.html`; returns the path of the report.

    Raises:
        StorageError: A file could not be written.
    """
    folder = Path(folder)
    write_json_atomic(folder / "evaluation.json", record)
    figures = folder / "figures"
    page = Report(title, subtitle=_subtitle(record))
    if record.pairs is not None:
        _add_accuracy(page, record.pairs, record.baselines, figures)
        _add_calibration(page, record.pairs, figures)
        _add_length(page, record, record.pairs, figures)
        _add_selection(page, record.pairs, record.agreement, figures)
    if record.benchmark is not None:
        _add_benchmark(page, record.benchmark, figures)
    if record.pairs is None and (record.edits is not None or record.probe is not None):
        page.section("Length")
        _add_changed_replies(page, record)
    if record.agreement is not None:
        _add_agreement(page, record.agreement)
    if record.invariance is not None:
        _add_invariance(page, record.invariance)
    page.section("Settings")
    page.settings("What was measured", record.settings, opened=True)
    if record.environment:
        page.settings("Environment", record.environment)
    return page.write(folder / "report.html")


def _subtitle(record: EvaluationRecord) -> str:
    if record.pairs is None:
        return "Intervals are 95 %, over prompts."
    return (
        f"{record.pairs.pairs} preference pairs of {record.pairs.prompts} prompts, scored in "
        f"{record.pairs.seconds:.1f} seconds, seed {record.pairs.seed}. Intervals are 95 %, over "
        "prompts."
    )


def _add_accuracy(
    page: Report, found: RewardEvaluation, baselines: Mapping[str, Interval], figures: Path
) -> None:
    page.section(
        "Accuracy",
        "How often the better reply has the higher score. Pairs that annotators call a tie are "
        f"left out here ({found.tied_labels}); equal scores count half ({found.tied_scores}).",
    )
    rows: list[dict[str, object]] = [{"of": "reward model", "accuracy": found.accuracy}]
    rows += [{"of": name, "accuracy": value} for name, value in baselines.items()]
    page.table(rows, caption="Accuracy beside the baselines.")
    for name, strata in (("subset", found.by_subset), ("confidence", found.by_confidence)):
        if not strata:
            continue
        page.table(_strata_rows(strata), caption=f"Accuracy by {name}.")
        _, svg = draw_strata(
            strata,
            figures / f"accuracy_by_{name}",
            title=f"Accuracy by {name}",
            overall=found.accuracy,
        )
        page.figure(
            svg,
            alt=f"Accuracy by {name}: " + _spread_of(strata),
            caption=f"Accuracy by {name}; the band is that of all pairs.",
        )
    if found.ties is not None:
        ties = found.ties
        page.table(
            _listed(
                "what",
                {
                    "tied pairs": ties.tied,
                    "decided pairs": ties.decided,
                    "decided margins larger than tied ones": ties.separation,
                    "median |margin|, tied": ties.median_size_tied,
                    "median |margin|, decided": ties.median_size_decided,
                    "three-way accuracy, threshold of the other half": ties.accuracy,
                    "three-way accuracy, no threshold": ties.accuracy_without,
                },
            ),
            caption="Ties: does the model tell pairs that annotators call equal? 0.5 in the third "
            "line is chance.",
        )


def _add_calibration(page: Report, found: RewardEvaluation, figures: Path) -> None:
    page.section(
        "Calibration",
        "A margin states the probability of the human's choice, by the logistic function. Log loss "
        "is in nats; a fair coin has 0.693.",
    )
    rows: list[dict[str, object]] = [
        {
            "scores": "as they are",
            "log loss": found.log_loss,
            "Brier": found.brier,
            "ECE": found.ece,
            "adaptive ECE": found.adaptive_ece,
        }
    ]
    series = {"as it is": found.reliability}
    calibration = found.calibration
    if calibration is not None:
        rows.append(
            {
                "scores": "with temperature, out of fold",
                "log loss": calibration.log_loss_after,
                "ECE": calibration.ece_after,
                "adaptive ECE": calibration.adaptive_ece_after,
            }
        )
        series["with temperature"] = calibration.reliability_after
    page.table(rows, caption="Calibration.")
    if calibration is not None:
        page.prose(
            f"Temperature {calibration.temperature}: divide margins by it. Above 1, the model is "
            f"too sure. It changes the log loss by {calibration.log_loss_change} nats."
            + ("" if calibration.identified else " It lies at its bound, so it is not known.")
        )
    _, svg = draw_reliability(series, figures / "reliability")
    page.figure(
        svg,
        alt=f"Reliability diagram; expected calibration error {found.ece:.3f}.",
        caption="Observed frequency against stated probability; on the dotted line, both agree.",
    )


def _add_length(
    page: Report, record: EvaluationRecord, found: RewardEvaluation, figures: Path
) -> None:
    control, bias = found.length_control, found.length_bias
    page.section(
        "Length",
        "A model that likes length looks right where humans prefer the longer reply. Whatever "
        "prefers the longer one has a balanced accuracy of 0.5.",
    )
    page.table(
        _listed(
            "accuracy",
            {
                "of the longer reply alone": found.longer_reply_accuracy,
                "better is longer": found.accuracy_where_longer_chosen,
                "better is shorter": found.accuracy_where_shorter_chosen,
                "balanced over the two": control.balanced_accuracy,
                f"lengths within a tenth ({control.matched_pairs} pairs)": control.matched_accuracy,
            },
        ),
        caption="Accuracy and length, in characters.",
    )
    page.table(
        [
            {"correlation": "score and length, within prompts", "value": bias.within_prompts},
            {"correlation": "the same, ranks", "value": bias.rank_within_prompts},
            {"correlation": "margin and length difference", "value": bias.margin},
            {"correlation": "the same, ranks", "value": bias.rank_margin},
            {"correlation": "human choice and length difference", "value": bias.human},
        ],
        caption="Correlation with length.",
    )
    page.prose(
        f"Beside length, the margin takes {control.margin_gain} nats off the held-out log loss of "
        f"{control.length_log_loss}."
    )
    _, svg = draw_length_curve(control.by_length_ratio, figures / "accuracy_by_length")
    page.figure(
        svg,
        alt="Accuracy by length difference: " + _spread_of(control.by_length_ratio),
        caption="Accuracy against how much longer the better reply is.",
    )
    _add_changed_replies(page, record)


def _add_changed_replies(page: Report, record: EvaluationRecord) -> None:
    if record.edits is not None:
        edits = record.edits
        page.table(
            [
                {"edits": kind, "number": number, "accuracy": accuracy}
                for kind, number, accuracy in (
                    ("all", edits.edits, edits.accuracy),
                    ("that shorten", edits.shorter, edits.accuracy_where_shorter),
                    ("that lengthen", edits.longer, edits.accuracy_where_longer),
                )
            ],
            caption="How often a human's improving edit scores higher than the original.",
        )
    if record.probe is not None:
        probe = record.probe
        page.table(
            [
                {"probe": f"last sentence {what}", "share": share, "of": of, "mean change": change}
                for what, share, of, change in (
                    ("removed", probe.cut_falls, "scores fall", probe.cut_change),
                    ("repeated", probe.filler_rises, "scores rise", probe.filler_change),
                )
            ],
            caption=f"Cut and padded replies ({probe.replies}). The first should be high, the "
            "second low.",
        )


def _add_selection(
    page: Report,
    found: RewardEvaluation,
    agreement: EnsembleAgreement | None,
    figures: Path,
) -> None:
    page.section(
        "Selective answering",
        "Accuracy where only the pairs that the model is surest of are answered. A curve that "
        "rises to the left knows when it is right.",
    )
    series = {"by margin": found.selective}
    if agreement is not None:
        series["by members' agreement"] = agreement.selective
    _, svg = draw_risk_coverage(
        series, figures / "risk_coverage", title="Accuracy of the surest pairs"
    )
    first, last = found.selective.points[0], found.selective.points[-1]
    page.figure(
        svg,
        alt=f"Accuracy {first.accuracy} on the surest {first.coverage:.0%}, {last.accuracy} on "
        "all.",
        caption=f"Risk and coverage; area under the error curve {found.selective.area:.3f}.",
    )
    page.table(_strata_rows(found.by_margin), caption="Accuracy by the size of the margin.")


def _add_benchmark(page: Report, found: BenchmarkScore, figures: Path) -> None:
    second = isinstance(found, RewardBench2Score)
    page.section(
        "RewardBench 2" if second else "RewardBench",
        "Scored by the benchmark's own rules."
        + (f" Not here: {', '.join(found.missing)}." if found.missing else ""),
    )
    rows: list[dict[str, object]] = [{"section": "score", "value": found.score}]
    if isinstance(found, RewardBenchScore):
        rows += [{"section": name, "value": value} for name, value in found.sections.items()]
        rows.append({"section": "prior sets (half weight)", "value": found.prior_sets})
    elif found.ties is not None:
        rows.append({"section": "Ties", "value": found.ties.score})
    page.table(rows, caption="Score and its parts, as shares.")
    if not found.subsets:
        return
    page.table(
        [{"subset": s.subset, "rows": s.rows, "accuracy": s.accuracy} for s in found.subsets],
        caption="Subsets.",
    )
    strata = [_stratum_of(subset) for subset in found.subsets]
    _, svg = draw_strata(
        strata,
        figures / "benchmark",
        title="Accuracy by subset",
        chance=0.25 if second else 0.5,  # of four replies, or of two
    )
    page.figure(svg, alt="Accuracy by subset: " + _spread_of(strata), caption="Accuracy by subset.")


def _add_agreement(page: Report, found: EnsembleAgreement) -> None:
    page.section(
        "Members of the ensemble",
        "Members that agree on everything add nothing. Kappa is of being right: 0 where two err "
        "independently, 1 where they err on the same pairs.",
    )
    rows: list[dict[str, object]] = [
        {"member": str(n), "accuracy": accuracy} for n, accuracy in enumerate(found.accuracies)
    ]
    rows.append({"member": "ensemble", "accuracy": found.ensemble_accuracy})
    page.table(rows, caption="Accuracy of each member and of the whole.")
    page.table(
        [
            {"members": f"{p.first}, {p.second}", "alike": p.agreement, "kappa": p.kappa}
            for p in found.between
        ],
        caption=f"Pairs ordered alike, mean {found.mean_agreement:.3f}.",
    )
    page.table(
        _strata_rows(found.by_disagreement),
        caption="Accuracy by the members' disagreement (standard deviation of the margin).",
    )


def _add_invariance(page: Report, found: BatchInvariance) -> None:
    page.section(
        "Batches",
        f"The same text scored alone and in a batch differs by at most {found.max_difference:.2g} "
        f"over {found.rows} texts (row {found.row}, {found.company}), where scores have a standard "
        f"deviation of {found.spread:.3g}.",
    )


def _listed(heading: str, values: Mapping[str, object]) -> list[dict[str, object]]:
    return [{heading: name, "value": value} for name, value in values.items()]


def _strata_rows(strata: tuple[Stratum, ...]) -> list[dict[str, object]]:
    return [{"part": s.name, "pairs": s.pairs, "accuracy": s.accuracy} for s in strata]


def _stratum_of(subset: SubsetScore) -> Stratum:
    return Stratum(subset.subset, None, subset.rows, subset.rows, subset.accuracy)


def _spread_of(strata: tuple[Stratum, ...] | list[Stratum]) -> str:
    ranked = sorted(strata, key=lambda s: s.accuracy.estimate)
    return (
        f"from {ranked[0].accuracy.estimate:.2f} ({ranked[0].name}) to "
        f"{ranked[-1].accuracy.estimate:.2f} ({ranked[-1].name})."
    )
