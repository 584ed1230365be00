#!/usr/bin/env bash
# Fine-tunes Chinese-CLIP ViT-B/16 on MUGE.
#
#   bash run_scripts/muge_finetune_vit-b-16_rbt-base.sh DATAPATH
#
# DATAPATH holds datasets/MUGE/lmdb/{train,valid} (`strobe clip build-lmdb`) and pretrained_weights/; the run goes to
# DATAPATH/experiments/. GPUS_PER_NODE, WORKER_CNT, MASTER_ADDR, MASTER_PORT and RANK in the environment say where it runs.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
DATAPATH=$1

# data
train_data=$DATAPATH/datasets/MUGE/lmdb/train
val_data=$DATAPATH/datasets/MUGE/lmdb/valid  # empty: no validation

# what the run begins with
resume=$DATAPATH/pretrained_weights/clip_cn_vit-b-16.pt
reset_data_offset="--reset-data-offset"
reset_optimizer="--reset-optimizer"  # empty: go on with the optimizer of the file

# what it writes
output_base_dir=$DATAPATH/experiments/
name=muge_finetune_vit-b-16_roberta-base_bs128_8gpu
save_step_frequency=999999  # none
save_epoch_frequency=1
log_interval=1
report_training_batch_acc="--report-training-batch-acc"

# training
context_length=52
warmup=100
batch_size=128
valid_batch_size=128
accum_freq=1
lr=5e-5
wd=0.001
max_epochs=3
valid_step_interval=150
valid_epoch_interval=1
vision_model=ViT-B-16
text_model=RoBERTa-wwm-ext-base-chinese
use_augment="--use-augment"
extra=()

. "$(dirname "${BASH_SOURCE[0]}")/finetune.sh"
