#!/usr/bin/env bash
# Which source helps which target, and can one tell before: a small pretrained encoder on local mirrors
# of GLUE and SuperGLUE (docs/results.md).
#   scripts/study_graph.sh DATA_ROOT MODEL_FOLDER
# Six sources on all rows, five targets cut to 300 training rows, one seed. Measures every source alone,
# computes every score, calibrates, and composes all sources beside those that `auto` picks.
# Finished runs are skipped, killed ones go on. Some two hours on 2 CPU cores, most of it for the sources.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
data=$(realpath "$1") model=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot
export MTL_DATA_ROOT=$data MTL_MODEL=$model OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
recipe=$(mktemp --suffix .yaml)
trap 'rm -f "$recipe"' EXIT
cat > "$recipe" <<'YAML'
name: small
defaults: {batch_size: 16, epochs: 4, eval_every: 38, max_dev_samples: 150, patience: 0, head: two_layer, select: loss}
methods:
  pfeiffer: {lr: 3.0e-3, reduction_factor: 16}
  average: {lr: 6.0e-3}
  scalearn*: {lr: 6.0e-3}
YAML
few="--suite glue+superglue --max-train-samples 300 --recipe $recipe"
sources="cola mrpc stsb rte qnli mnli"
targets="mrpc cb rte wic copa"

"$python" -m mtl.train --suite glue --task $sources --lr 3e-3 --epochs 3
"$python" -m mtl.graph measure $few --targets $targets --sources $sources --scores all
"$python" -m mtl.graph calibrate --split test
"$python" -m mtl.graph calibrate
for target in $targets; do
  own=$target
  [[ " $sources " == *" $target "* ]] && own=
  "$python" -m mtl.compose $few --target "$target" --sources $sources $own --method scalearn
  "$python" -m mtl.compose $few --target "$target" --sources auto --budget 2 --method scalearn
  "$python" -m mtl.compose $few --target "$target" --sources auto --budget 1 --method scalearn
done
"$python" -m mtl.report --suite glue+superglue
