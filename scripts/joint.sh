#!/usr/bin/env bash
# Joint baselines over a suite: scripts/joint.sh glue hyperformer++ [further options of mtl.joint]
# "all" instead of a method runs all five, one after the other.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: scripts/joint.sh SUITE METHOD|all [options of python -m mtl.joint]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot
suite="$1"
methods="$2"
shift 2
if [ "$methods" = all ]; then
  methods="hyperformer hyperformer++ propetl-m adapter-m full-ft-m"
fi
status=0
for method in $methods; do
  "$python" -m mtl.joint --suite "$suite" --method "$method" "$@" || status=$?
done
exit "$status"
