#!/bin/bash
# Evaluation on two nodes of four GPUs: sbatch recipes/slurm/eval.sh, where `langsamp` is found (docs/scale.md).
#SBATCH --job-name=eval
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1        # Ray starts the workers of a node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@300        # five minutes before the time is over
#SBATCH --requeue                  # a node that is lost
#SBATCH --open-mode=append
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1   # the same command goes on from the records

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)   # nobody else on the network may join
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600   # seconds to wait for all nodes; Python on a shared disk starts slowly
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 4 -- \
  langsamp eval --model /shared/runs/langsamp --tasks sr-bible,sr-tatoeba,taxi1500,sib200,ner,pos --data /shared/data \
  --seeds 5 --output /shared/results/langsamp --ray &
wait $!
