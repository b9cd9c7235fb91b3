#!/usr/bin/env bash
# A published table: its plan, its runs, and what came out of it beside the paper's.
#   scripts/reproduce.sh STUDY [options of python -m mtl.study run]
# On a machine with a GPU and the network; the same line again goes on where it was.
if [ $# -eq 0 ]; then
  echo "usage: scripts/reproduce.sh STUDY [options of python -m mtl.study run]" >&2
  exit 2
fi
source "$(dirname "$0")/env.sh"
python -m mtl.study plan "$1" && python -m mtl.study run "$@"
