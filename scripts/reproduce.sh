#!/usr/bin/env bash
# A published table: its plan, its runs, and what came out beside the paper's figures. For a machine
# with a GPU and the network; the same line again goes on where it was.
#   scripts/reproduce.sh STUDY [options of python -m mtl.study run]
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: scripts/reproduce.sh STUDY [options of python -m mtl.study run]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot,peft
"$python" -m mtl.study plan "$1"
"$python" -m mtl.study run "$@"
table="$("$python" -m mtl.study plan "$1" --json |
  "$python" -c 'import json, sys; print(json.load(sys.stdin)["against"] or "")')"
if [ -n "$table" ]; then
  "$python" -m mtl.report --against "$table"
fi
