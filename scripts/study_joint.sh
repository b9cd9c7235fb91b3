#!/usr/bin/env bash
# Joint training beside two stages at the same number of steps, on a local mirror of GLUE with a small
# pretrained encoder (docs/results.md).
#   scripts/study_joint.sh DATA_ROOT MODEL_FOLDER [PROCESSES]
# Tasks mrpc, sst2, stsb, 1,000 training rows each, batches of 32. 576 steps each way: joint 576; stage
# one 3 × 96 and stage two 3 × 96; own adapters that use all their steps for themselves 3 × 192.
# Finished runs are skipped, killed ones go on. Some two hours on 2 CPU cores with PROCESSES=2.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
data=$(realpath "$1") model=$(realpath "$2") processes=${3:-2}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh
export MTL_DATA_ROOT=$data MTL_MODEL=$model OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python
tasks="mrpc sst2 stsb"
zoo=${MTL_ZOO:-adapters_zoo}
few="--max-train-samples 1000 --max-dev-samples 300 --eval-every 96 --warmup 0.1 --set patience=0"

each() { xargs -P "$processes" -I{} bash -c '"$python" -m mtl.{}'; }

for task in $tasks; do
  echo "train --suite glue --task $task --lr 3e-3 --max-steps 96 $few"
  # a zoo of its own: two adapters of one task and seed would be two possible sources
  echo "train --suite glue --task $task --lr 3e-3 --max-steps 192 $few --zoo $zoo.192"
done | each
for task in $tasks; do
  echo "compose --suite glue --target $task --sources $tasks --method scalearn --lr 6e-3 --max-steps 96 $few"
done | each
while read -r method rate; do
  echo "joint --suite glue --task $tasks --method $method --lr $rate --max-steps 576 $few"
done <<'RATES' | each
full-ft-m 1e-4
adapter-m 3e-3
propetl-m 3e-3
hyperformer 1e-3
hyperformer 3e-4
hyperformer++ 1e-3
hyperformer++ 3e-4
RATES
"$python" -m mtl.report --suite glue --zoo "$zoo"
"$python" -m mtl.report --suite glue --zoo "$zoo.192"
