#!/usr/bin/env bash
# Stage two for every task of a suite as target: scripts/stage2.sh glue [options of mtl.compose]
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: scripts/stage2.sh SUITE [options of python -m mtl.compose]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot,peft
suite="$1"
shift
status=0
for target in $("$python" -c 'import sys; from mtl.tasks import load_suite; print(*load_suite(sys.argv[1]).tasks)' "$suite"); do
  "$python" -m mtl.compose --suite "$suite" --target "$target" "$@" || status=$?
done
exit "$status"
