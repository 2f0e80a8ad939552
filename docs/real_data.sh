#!/usr/bin/env bash
# From human preferences to a searched answer, by the commands a user takes with a large model.
# See docs/real_data.md. DATA may be any preference file; the default is hh-rlhf harmless-base.
# RESULTS takes all figures as one JSON file; docs/results/real_data.json makes those of the page.
set -euo pipefail
DATA=${DATA:-../shared/data/hh-rlhf/harmless-base-1800.jsonl.gz}
OUT=${OUT:-runs/hh}
RESULTS=${RESULTS:-$OUT/results.json}
PATH="$PWD/.venv/bin:$PATH"  # where `make` installed
test -f "$DATA" || { echo "no data at $DATA; set DATA to a preference file" >&2; exit 2; }

python benchmarks/reward/real_data.py begin --run "$OUT"

# 1,800 pairs with implicit prompts; a fifth of the prompts is held out from everything below.
prefsearch reward split --dataset "$DATA" --holdout 0.2 --out "$OUT/data"

# A small Llama from scratch learns to write from the chosen replies.
prefsearch policy sft --dataset "$OUT/data/train.jsonl" --out "$OUT/sft" \
  --vocabulary 2048 --hidden_size 128 --layers 4 --heads 4 --context 384 --max_length 256 \
  --epochs 2 --learning_rate 3e-3 --batch_size 8

# The reward model starts from the policy.
prefsearch reward train --model "$OUT/sft/checkpoints/model" --dataset "$OUT/data/train.jsonl" \
  --out "$OUT/reward" --max_length 256 --epochs 1 --learning_rate 3e-4 --batch_size 16

# Held-out accuracy beside choosing the longer reply and a bag of words.
prefsearch reward evaluate --model "$OUT/reward/checkpoints/model" --max_length 256 \
  --dataset "$OUT/data/test.jsonl" --training_dataset "$OUT/data/train.jsonl" \
  --out "$OUT/evaluation.json"

# Best-of-N, beam and tree search on held-out prompts that leave room for a reply.
prefsearch policy evaluate --policy "$OUT/sft/checkpoints/model" \
  --reward_model "$OUT/reward/checkpoints/model" --dataset "$OUT/data/test.jsonl" --limit 64 \
  --on_long_prompt skip --max_new_tokens 96 \
  --methods beam gumbel_muzero --budgets 4 8 --pool 16 --out "$OUT/evaluate"

python benchmarks/reward/real_data.py collect --run "$OUT" --out "$RESULTS"
