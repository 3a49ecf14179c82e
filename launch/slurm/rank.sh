# One rank of train.sbatch: SLURM's names for its place become torch's, and Python takes this shell's place.
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=${SLURM_STEP_TASKS_PER_NODE%%(*}
# A cold file system can keep Python for minutes. Of a task that ended srun knows, and ends the others.
export MIVOLO_RENDEZVOUS_TIMEOUT=${MIVOLO_RENDEZVOUS_TIMEOUT:-600}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
echo "=== $(date '+%F %T') rank $RANK of $WORLD_SIZE: $LOCAL_RANK of $LOCAL_WORLD_SIZE on $SLURMD_NODENAME," \
    "${OMP_NUM_THREADS} threads, process $$, start ${SLURM_RESTART_COUNT:-0}"
trap '' USR2 TERM  # until Python listens, a moment later; by default they would end it
exec ${PYTHON:-python} -m mivolo_lite train "$@"
