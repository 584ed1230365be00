# Sourced by the fine-tuning scripts, which set the variables: runs `strobe clip train` with them, on every GPU of this
# machine (or as many as GPUS_PER_NODE says), on one CPU process where there is none, or on WORKER_CNT machines. LAUNCHER
# says what starts the processes: strobe (one machine), torchrun (the same command on each machine), mpirun (Open MPI, one
# command for all). With CONTINUE=1 a run that has ended early goes on from its last checkpoint.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${STROBE:-$here/build/strobe}
[ -x "$program" ] || program=$(command -v strobe) || {
    echo "finetune.sh: no strobe in $here/build nor in PATH; \`make\` builds it, STROBE names another" >&2
    exit 1
}

visible=$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)
GPUS_PER_NODE=${GPUS_PER_NODE:-$((visible > 8 ? 8 : visible > 0 ? visible : 1))}
WORKER_CNT=${WORKER_CNT:-1}         # machines
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}  # the first machine, where there are several
MASTER_PORT=${MASTER_PORT:-8514}
RANK=${RANK:-0}                     # of this machine, from 0
LAUNCHER=${LAUNCHER:-$([ "$WORKER_CNT" -gt 1 ] && echo torchrun || echo strobe)}

if [ "${CONTINUE:-0}" = 1 ]; then
    resume=$output_base_dir/$name/checkpoints/epoch_latest.pt
    reset_data_offset=
    reset_optimizer=
fi

arguments=(
    --train-data="$train_data"
    $reset_data_offset
    $reset_optimizer
    --logs="$output_base_dir"
    --name="$name"
    --save-step-frequency="$save_step_frequency"
    --save-epoch-frequency="$save_epoch_frequency"
    --log-interval="$log_interval"
    $report_training_batch_acc
    --context-length="$context_length"
    --warmup="$warmup"
    --batch-size="$batch_size"
    --valid-batch-size="$valid_batch_size"
    --valid-epoch-interval="$valid_epoch_interval"
    --accum-freq="$accum_freq"
    --lr="$lr"
    --wd="$wd"
    --max-epochs="$max_epochs"
    --vision-model="$vision_model"
    --text-model="$text_model"
    $use_augment
    "${extra[@]}"
)
[ -z "$val_data" ] || arguments+=(--val-data="$val_data")
[ -z "$resume" ] || arguments+=(--resume="$resume")
[ -z "$valid_step_interval" ] || arguments+=(--valid-step-interval="$valid_step_interval")

case $LAUNCHER in
strobe)
    [ "$WORKER_CNT" -eq 1 ] || { echo "finetune.sh: LAUNCHER=strobe starts one machine; torchrun and mpirun more" >&2; exit 2; }
    # RANK means a process to strobe, not a machine.
    exec env -u RANK -u MASTER_ADDR -u MASTER_PORT "$program" clip train --nproc "$GPUS_PER_NODE" "${arguments[@]}"
    ;;
torchrun)
    # -- since torchrun takes --logs for its own --logs-specs.
    exec torchrun --nnodes="$WORKER_CNT" --node-rank="$RANK" --nproc-per-node="$GPUS_PER_NODE" \
        --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" --no-python -- "$program" clip train "${arguments[@]}"
    ;;
mpirun)
    # A process needs the cores of all its threads. When one is lost the others need some seconds to say which.
    export MASTER_ADDR MASTER_PORT
    exec env -u RANK mpirun -np "$((WORKER_CNT * GPUS_PER_NODE))" --map-by "ppr:$GPUS_PER_NODE:node" --bind-to none \
        --mca odls_base_sigkill_timeout 10 -x MASTER_ADDR -x MASTER_PORT \
        "$program" clip train "${arguments[@]}"
    ;;
*)
    echo "finetune.sh: LAUNCHER: expected strobe, torchrun or mpirun, found $LAUNCHER" >&2
    exit 2
    ;;
esac
