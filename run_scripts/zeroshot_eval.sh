#!/usr/bin/env bash
# Classifies a folder of images by class names alone.
#
#   bash run_scripts/zeroshot_eval.sh GPU PATH DATASET VISION_MODEL TEXT_MODEL RESUME [INDEX]
#
# Reads PATH/datasets/DATASET/test (a folder of images for each class), .../label_cn.txt (a name a line) and the
# checkpoint RESUME; INDEX is a file of the order of classes. Writes PATH/save_predictions/DATASET.json. GPU may be
# empty: the CPU.
set -euo pipefail
[ $# -eq 6 ] || [ $# -eq 7 ] || { sed -n '2,8s/^# \?//p' "$0" >&2; exit 2; }
export CUDA_VISIBLE_DEVICES=$1
path=$2
dataset=$3
vision_model=$4
text_model=$5
resume=$6
index=${7:-}

datapath=$path/datasets/$dataset/test
label_file=$path/datasets/$dataset/label_cn.txt
savedir=$path/save_predictions
mkdir -p "$savedir"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${STROBE:-$here/build/strobe}
[ -x "$program" ] || program=strobe

exec "$program" clip zeroshot \
    --datapath="$datapath" \
    --label-file="$label_file" \
    --save-dir="$savedir" \
    --dataset="$dataset" \
    --img-batch-size=64 \
    --resume="$resume" \
    --vision-model="$vision_model" \
    --text-model="$text_model" \
    ${index:+--index="$index"}
