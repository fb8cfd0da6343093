#!/bin/bash
# Embeds new rows as a job array, each task its own range of shards; the task that finds none missing ends the output.
#   sbatch --array=0-9 cluster_configs/slurm/embed.sh runs/mine new runs/array 100
# embeds 1,000 shards by ten tasks of 100. `distspectral embed RUN NEW --local --shard-range 0:1` says how many there are.
#SBATCH --job-name=distspectral-embed
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --requeue
#SBATCH --output=embed-%A-%a.log
set -euo pipefail
if [ $# -ne 4 ]; then
    echo "usage: sbatch --array=0-LAST $0 RUN NEW OUTPUT SHARDS_PER_TASK" >&2
    exit 2
fi
first=$((SLURM_ARRAY_TASK_ID * $4))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_WAIT_POLICY=PASSIVE
exec distspectral embed "$1" "$2" --output "$3" --local --shard-range "$first:$((first + $4))"
