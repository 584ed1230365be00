#!/usr/bin/env bash
# The main job on the built-in corpus: trains the three attention types from the same weights, batches and dropout masks, compares
# them and translates three phrases. Everything goes to demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
types=(dotscale flash_attn imp_flash_attn)
model=(--d-model 128 --heads 4 --d-ff 512 --layers 2 --dropout 0.1 --batch-size 128
  --optimizer adamw --lr 2e-3 --schedule cosine --warmup 200 --epochs 5 --seed 1)

start=$SECONDS
build/strobe nmt prepare --demo --data demo/data
for type in "${types[@]}"; do
  echo "-------- $type --------"
  build/strobe nmt train --attn_type "$type" --data demo/data --out "demo/$type" "${model[@]}"
done
echo
scripts/training_table.py "${types[@]/#/demo/}"
echo
printf '%s\n' "one thousand two hundred thirty-four" "in 3 days" "Monday, March 4, 2024" >demo/phrases.txt
build/strobe nmt translate --model demo/imp_flash_attn/model.pth <demo/phrases.txt | paste -d '\t' demo/phrases.txt -
echo "[demo] $((SECONDS - start)) s"
