#!/usr/bin/env bash
# Stage one over a suite: scripts/stage1.sh glue [further options of mtl.train]
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: scripts/stage1.sh SUITE [options of python -m mtl.train]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot,peft
suite="$1"
shift
exec "$python" -m mtl.train --suite "$suite" "$@"
