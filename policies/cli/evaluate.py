"""`prefsearch policy evaluate`: methods and budgets on the same prompts.

Under `torchrun` or `accelerate launch` batches of prompts are shared out among the processes; the
records are those of one process.
"""

import json

from policies.cli.evaluate_args import PolicyEvaluateArgs
from policies.cli.loading import digests_of, prompts_for, search_models, searcher_for
from policies.evaluation.clusters import clusters_of
from policies.evaluation.gain_report import write_gain_report
from policies.evaluation.gold_scorer import load_gold_scorer
from policies.evaluation.runner import Measurement, keep_prompts
from policies.planning.options import MethodName
from policies.planning.searcher import SearchPolicy
from prefsearch.config.checks import require
from prefsearch.config.settings import flatten, run_settings
from prefsearch.distributed import join_processes
from prefsearch.storage.json_text import json_text
from rewardmodel.models.verifiers import AnswerMatch


def evaluate(args: PolicyEvaluateArgs) -> None:
    """Measures and reports."""
    processes = join_processes()
    scorer = load_gold_scorer(
        args.gold, answer_form=args.options.answer_form, on_bad_row=args.on_bad_row
    )
    models = search_models(args)
    prompts = prompts_for(args, models.policy)
    wanted = "at least 2, since intervals are over prompts"
    require(len(prompts) >= 2, "dataset", f"{len(prompts)} prompt", wanted)
    if isinstance(scorer, AnswerMatch):
        scorer(prompts, [""] * len(prompts))  # a prompt without a reference stops the run here
    clusters = clusters_of(prompts)
    searchers: list[tuple[MethodName, int, SearchPolicy]] = [
        (method, budget, searcher_for(args, models, method, budget))
        for method, budget in args.searches()
    ]
    run = processes.open_run(
        args.out,
        run_settings(args),
        resume=args.resume,
        inputs=digests_of(args, prompts, args.gold),
    )
    measurement = Measurement(
        run,
        prompts,
        clusters,
        scorer,
        args.seed,
        batch_size=args.options.search_batch_size,
        processes=processes,
    )
    processes.on_main(lambda: keep_prompts(run, prompts))
    measurement.measure_pool(
        models.policy,
        models.reward_model,
        size=args.pool,
        proposal=args.proposal,
        methods=args.pooled(),
        counts=args.counts(),
        form=args.options.answer_form,
        rows=args.options.max_rows,
    )
    for method, budget, searcher in searchers:
        measurement.measure_search(searcher, method, budget)
    if processes.main:
        console = processes.console()
        console.print(write_gain_report(run, json.loads(json_text(flatten(args)))))
        console.print(f"Open {run.report} in a browser.")
