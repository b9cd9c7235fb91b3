#!/usr/bin/env bash
# The tests: style, types, behaviour. Does its own set-up; safe to repeat.
#   scripts/test.sh            the fast tests (what CI runs)
#   scripts/test.sh --slow     the slow ones, too
#   scripts/test.sh tests/zoo  anything else goes to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh test,lint,docs
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export MTL_TEST_ALL=1  # everything is installed: no test may skip for want of it
marker=()
if [ "${1:-}" = "--slow" ]; then
  shift
  marker=(-m "slow or not slow")
fi
"$python" -m ruff check .
"$python" -m ruff format --check --quiet .
"$python" -m mypy
"$python" -m pytest -n "${MTL_TEST_PROCESSES:-2}" "${marker[@]}" "$@"
