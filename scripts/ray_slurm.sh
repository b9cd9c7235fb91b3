#!/usr/bin/env bash
# A study on the nodes of a SLURM allocation: Ray's head on the first, a worker on every other one, and the
# driver beside the head. Call it from the checkout, in an environment that has mtl[ray]; zoo, runs and cache
# (MTL_ZOO, MTL_RUNS, MTL_CACHE) lie on a filesystem that all nodes share. See docs/clusters.md.
#   sbatch --nodes 4 --ntasks-per-node 1 --cpus-per-task 32 --gpus-per-node 8 --signal B:TERM@120 \
#     scripts/ray_slurm.sh STUDY [options of python -m mtl.study run]
set -euo pipefail
if [ $# -eq 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "usage, inside a SLURM allocation: scripts/ray_slurm.sh STUDY [options of python -m mtl.study run]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
for needed in ray python srun scontrol; do
  command -v "$needed" > /dev/null || { echo "error: $needed is not on PATH: activate the environment that has mtl[ray]" >&2; exit 2; }
done

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
ip="${MTL_HEAD_IP:-$(hostname -I | cut -d' ' -f1)}"
port="${MTL_HEAD_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"  # several jobs may share a node
cpus="${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
# A token of this job, which srun hands on in the environment: it stands in no file and on no command line.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

steps=()
trap 'kill "${steps[@]}" 2> /dev/null || true' EXIT
on() {  # on NODE COMMAND…: a step of the job
  srun --overlap --nodes 1 --ntasks 1 --cpus-per-task "$cpus" --nodelist "$@" &
  steps+=($!)
}
on "${nodes[0]}" ray start --head --block --node-ip-address "$ip" --port "$port" --num-cpus "$cpus" \
  --include-dashboard false --disable-usage-stats --temp-dir "/tmp/ray-$SLURM_JOB_ID"
for node in "${nodes[@]:1}"; do  # each waits for the head
  on "$node" ray start --block --address "$ip:$port" --num-cpus "$cpus"
done
python -m mtl.study.ray_wait "$ip:$port" "${#nodes[@]}"

python -m mtl.study run "$@" --engine ray --address "$ip:$port" &
driver=$!
trap 'kill -TERM "$driver" 2> /dev/null || true' TERM  # SLURM's warning: runs keep their resume points
code=0
wait "$driver" || code=$?
if kill -0 "$driver" 2> /dev/null; then  # the trap broke the first wait off
  code=0
  wait "$driver" || code=$?
fi
exit "$code"
