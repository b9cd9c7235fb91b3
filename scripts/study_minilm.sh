#!/usr/bin/env bash
# The transfer study of docs/results.md: a small pretrained encoder on a local mirror of GLUE.
#   scripts/study_minilm.sh DATA_ROOT MODEL_FOLDER [PROCESSES]
# Sources on 2,000 training rows, targets cut to 300, every stage-two method and the own adapter, three
# seeds. Finished runs are skipped, killed ones go on. Some two hours on 2 CPU cores, PROCESSES=2.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
data=$(realpath "$1") model=$(realpath "$2") processes=${3:-2}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot,peft
export MTL_DATA_ROOT=$data MTL_MODEL=$model OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python
export few="--max-train-samples 300 --epochs 10 --eval-every 20 --patience 0"
export sources="cola mrpc stsb rte qnli mnli"

each() { xargs -P "$processes" -I{} bash -c '"$python" -m mtl.{}'; }

# the sources of a seed of their own, so that one name means one of the two adapters of a task
for task in $sources; do
  echo "train --suite glue --task $task --lr 3e-3 --seeds 100 --max-train-samples 2000 --epochs 2" \
    "--eval-every 63 --patience 0"
done | each
for seed in 0 1 2; do
  for task in mrpc stsb qnli; do
    echo "train --suite glue --task $task --lr 3e-3 --seeds $seed $few"
  done
done | each
for method in scalearn average fusion scalearn-uniform++ scalearn++ scalearn-uniform; do
  lr=6e-3
  [ $method = fusion ] && lr=3e-4
  for target in mrpc stsb qnli; do
    others=
    for task in $sources; do
      [ $task = $target ] || others="$others $task:pfeiffer/seed100"
    done
    for seed in 0 1 2; do
      echo "compose --suite glue --target $target --sources $others $target --method $method" \
        "--lr $lr --seeds $seed $few"
    done
  done
done | each
"$python" -m mtl.report --suite glue
