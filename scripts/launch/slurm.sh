#!/bin/bash
# A training as one SLURM job that goes on until it is done, whatever the time limit:
#
#     sbatch scripts/launch/slurm.sh RECIPE --output_dir /shared/outputs/mine [--field value ...]
#
# SLURM starts one process for each accelerator; torch finds the others by the variables below, no torchrun between:
# it would hide the exit code, and kill 30 s after SIGTERM, in the middle of a large checkpoint.
#
# Ten minutes before the limit every process gets SIGTERM: the update (and an evaluation that has begun) is finished, a
# checkpoint saved, and the run ends with code 75. The job is then put back into the queue and goes on from there. A node
# that fails puts it back, too (--requeue), and it goes on from the newest checkpoint that is whole.

#SBATCH --job-name=hfseq
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=hfseq-%j.log

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Two jobs on one machine do not meet.
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# One task's variables, as torchrun would set them; exec, so that a signal reaches Python itself.
srun --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
    exec "${PYTHON:-python}" -m hfseq pretrain "$@"' hfseq "$@"
code=$?

if [ "$code" -eq 75 ]; then
    echo "Interrupted, not finished: job $SLURM_JOB_ID goes back into the queue."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
