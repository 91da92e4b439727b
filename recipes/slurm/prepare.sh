#!/bin/bash
# Text to token blocks on four nodes: sbatch recipes/slurm/prepare.sh, where `langsamp` is found (docs/scale.md).
#SBATCH --job-name=prepare
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1        # Ray starts the workers of a node
#SBATCH --cpus-per-task=64
#SBATCH --mem=96G                  # 1 GB a worker (measured with a vocabulary of 250,002 pieces), and room for Ray
#SBATCH --exclusive                # a second Ray on a node is refused, and the end of one is that of the other
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300        # five minutes before the time is over
#SBATCH --requeue                  # a node that is lost
#SBATCH --open-mode=append
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1   # the same command goes on where it stopped

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)   # nobody else on the network may join
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600   # seconds to wait for all nodes; Python on a shared disk starts slowly
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
  langsamp prepare --corpus /shared/text --tokenizer FacebookAI/xlm-roberta-base --heldout 4 --output /shared/store --ray &
wait $!
