#!/usr/bin/env bash
# Installs the peers of benchmarks/core/planning_core.py, benchmarks/atari/atari.py and benchmarks/text/text_search.py
# from PyPI into .bench/, which git ignores. None is a dependency of the project, and nothing of
# theirs is kept in it.
#
#   bash benchmarks/peers.sh            # PYTHON=python3.11 chooses the interpreter
#
# mctx gets an environment of its own. Of LightZero planning_core.py loads only the compiled trees of
# its wheel, by our own interpreter, so that both sides run the same torch. The wheel exists for
# Python 3.11 on Linux; elsewhere the benchmarks go on without that side.
#
# atari.py runs LightZero's Python, too: in an environment that sees the project's packages, so that
# both sides run the same torch, numpy and ale-py, and where what it imports beside them is
# installed. It and DI-engine ask for older ones (numpy 1, gymnasium 0.28), hence --no-deps.
#
# llm-reasoners gets an environment that sees the project's packages, so that both sides run the
# same torch and transformers; what it wants beside them is installed there and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PIP_DISABLE_PIP_VERSION_CHECK=1

if ! .bench/mctx/bin/python -c 'import mctx' 2>/dev/null; then
  "$PYTHON" -m venv .bench/mctx
  .bench/mctx/bin/python -m pip install --quiet mctx==0.0.71 jax==0.10.2 jaxlib==0.10.2
fi
if ! ls .bench/lightzero/lzero/mcts/ctree/ctree_muzero/mz_tree.*.so >/dev/null 2>&1; then
  "$PYTHON" -m pip install --quiet --no-deps --no-compile --only-binary :all: \
    --target .bench/lightzero LightZero==0.2.0 ||
    echo "LightZero 0.2.0 has no wheel for this Python or system: that side will be skipped" >&2
fi
if [ -d .bench/lightzero/lzero ] &&
  ! .bench/lightzero_env/bin/python -W ignore -c 'import lzero.policy.muzero' 2>/dev/null; then
  "$PYTHON" -m venv .bench/lightzero_env
  packages='import site; print(site.getsitepackages()[0])'
  theirs=$(.bench/lightzero_env/bin/python -c "$packages")
  "$PYTHON" -c "$packages" >"$theirs/project.pth"
  echo "$PWD/.bench/lightzero" >"$theirs/lightzero.pth"
  kept='torch|numpy|scipy|gymnasium|ale-py|ale_py'
  "$PYTHON" -m pip freeze 2>/dev/null | grep -E "^($kept)==" >.bench/lightzero_env/constraints.txt
  if ! { .bench/lightzero_env/bin/python -m pip install --quiet --no-deps \
    DI-engine==0.5.3 gym==0.25.1 gym-notices &&
    .bench/lightzero_env/bin/python -m pip install --quiet \
      --constraint .bench/lightzero_env/constraints.txt \
      DI-toolkit DI-treetensor URLObject cloudpickle easydict einops enum-tools flask hickle \
      line_profiler matplotlib mpire opencv-python-headless pympler pynng redis responses tabulate \
      tensorboardX trueskill wandb xxhash yapf==0.29.0; }; then
    echo "DI-engine 0.5.3 cannot be installed here: atari.py will skip LightZero" >&2
  fi
fi
if ! .bench/llm_reasoners/bin/python -c 'from reasoners.lm import HFModel' 2>/dev/null; then
  "$PYTHON" -m venv .bench/llm_reasoners
  packages='import site; print(site.getsitepackages()[0])'
  theirs=$(.bench/llm_reasoners/bin/python -c "$packages")
  "$PYTHON" -c "$packages" >"$theirs/project.pth"
  kept='torch|transformers|tokenizers|numpy|scipy|datasets|huggingface_hub|peft|accelerate'
  "$PYTHON" -m pip freeze 2>/dev/null | grep -E "^($kept)==" >.bench/llm_reasoners/constraints.txt
  .bench/llm_reasoners/bin/python -m pip install --quiet \
    --constraint .bench/llm_reasoners/constraints.txt llm-reasoners==1.0.2 ||
    echo "llm-reasoners 1.0.2 cannot be installed here: that side will be skipped" >&2
fi
