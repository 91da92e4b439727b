#!/bin/bash
# Training on two nodes of four GPUs: sbatch recipes/slurm/train.sh, where `langsamp` is found (docs/scale.md).
#SBATCH --job-name=langsamp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1        # torchrun starts the processes of a node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300        # five minutes before the time is over
#SBATCH --requeue                  # a node that is lost
#SBATCH --open-mode=append
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1   # the same command goes on from the last sealed checkpoint

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun \
  --nnodes "$SLURM_NNODES" --nproc_per_node 4 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))" \
  -m langsamp train recipes/paper.yaml \
  --base FacebookAI/xlm-roberta-base --store /shared/store --output /shared/runs/langsamp \
  --per_device_train_batch_size 64 --gradient_accumulation_steps 2 &   # x 8 processes = the paper's 1,024 blocks a step
wait $!
