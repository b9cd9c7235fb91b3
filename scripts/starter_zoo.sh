#!/usr/bin/env bash
# A starter zoo: adapters of a suite on a small encoder, packed into one file for people with few rows.
#   scripts/starter_zoo.sh MODEL_FOLDER DATA_ROOT [OUT.mtlzoo] [options]
#     --tasks "A B …"  tasks of the suite [all]      --suite NAME  [glue]
#     --rows N         training rows a task [2000]   --eval N      dev and test rows at most [1000]
#     --epochs N       [5]                           --lr X        [3e-3]
#     --license NAME   of the weights, for the card [none]
# Beside OUT.mtlzoo stands OUT.md, its card. Finished runs are skipped, killed ones go on. MTL_PYTHON names
# a Python that has mtl; without it the virtual environment of the checkout is made or used.
set -euo pipefail
usage() { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 2 ] || usage
model=$(realpath "$1") data=$(realpath "$2") out=starter.mtlzoo
shift 2
case "${1:-}" in "" | --*) ;; *) out=$1; shift ;; esac
suite=glue tasks=() rows=2000 eval=1000 epochs=5 lr=3e-3 license=()
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case "$1" in
    --suite) suite=$2 ;;
    --tasks) read -ra tasks <<< "$2" ;;
    --rows) rows=$2 ;;
    --eval) eval=$2 ;;
    --epochs) epochs=$2 ;;
    --lr) lr=$2 ;;
    --license) license=(--license "$2") ;;
    *) usage ;;
  esac
  shift 2
done
case "$out" in *.mtlzoo) ;; *) echo "error: $out: the file is called NAME.mtlzoo" >&2; exit 2 ;; esac
name=$(realpath -m "${out%.mtlzoo}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -n "${MTL_PYTHON:-}" ]; then python=$MTL_PYTHON; else . scripts/env.sh plot; fi
"$python" -m mtl.train --suite "$suite" ${tasks[@]+--task "${tasks[@]}"} --model "$model" --data-root "$data" \
  --zoo "$name.zoo" --runs "$name.runs" --max-train-samples "$rows" --max-eval-samples "$eval" \
  --epochs "$epochs" --lr "$lr" --patience 0
"$python" -m mtl.zoo pack --all "$name.mtlzoo" --card "$name.md" ${license[@]+"${license[@]}"} --replace \
  --zoo "$name.zoo"
