#!/usr/bin/env bash
# From a fresh clone to a result: stage one over the demo suite, the best use of its adapters for
# a low-resource target (a search on dev), the comparison with the target's own adapter, the omega heat map, the zoo's contents.
# Does its own set-up; safe to repeat (finished runs are skipped, interrupted ones go on).
# MTL_ZOO names another zoo (default: adapters_zoo in the checkout).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh plot
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false MTL_ZOO="${MTL_ZOO:-$PWD/adapters_zoo}"
seeds="0 1 2 3 4"
mkdir -p results

echo "== Stage one: one adapter per task of the demo suite"
"$python" -m mtl.train --suite demo --seeds 0
echo
echo "== The target's own adapter, five seeds: what there is to beat"
"$python" -m mtl.train --suite demo --task entail --seeds $seeds
echo
echo "== Stage two: which of the six frozen adapters help, used how? Trials on dev, then five seeds"
"$python" -m mtl.compose --suite demo --target entail --sources best --method scalearn --seeds $seeds
echo
echo "== Result"
"$python" -m mtl.report --suite demo --target entail --heatmap results/demo_entail_omega.png
echo
echo "== The zoo ($MTL_ZOO)"
"$python" -m mtl.zoo ls
