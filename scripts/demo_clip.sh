#!/usr/bin/env bash
# Chinese-CLIP on the built-in data set: draws emoji with Chinese captions, trains a small model of both towers on them, measures
# its retrieval on pictures and words that it has not seen, and answers queries with a sheet of pictures. Everything goes to
# demo/clip/.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo/clip
data=$out/data
test=$out/test
precision=amp
grep -qw avx512_bf16 /proc/cpuinfo && precision=amp_bf16  # where the processor multiplies in bf16
training=(--vision-model ViT-mini-16-96 --text-model BERT-mini-chinese --use-flash-attention --precision "$precision"
  --batch-size 64 --valid-batch-size 64 --max-epochs 20 --lr 1e-3 --warmup 100 --wd 0.05 --num-workers 1
  --save-epoch-frequency 5)
queries=(玫瑰花 菠萝 一只企鹅 老虎 下雨的天气 弹吉他 打篮球 夜晚的天空)

start=$SECONDS
clip() { build/strobe clip "$@"; }

features() {  # features TEXTS: of the texts, beside the images' of the test split
  clip extract-features --resume "$model" --extract-text-feats --text-data "$1" --text-feat-output-path "${1%.jsonl}_features.jsonl"
}

# Weather, plants, food, feasts, sports, places and animals: enough for some minutes on two cores.
clip demo-data --data-dir "$data" --first 1F300 --last 1F43F
clip build-lmdb --data-dir "$data" --splits train,valid,test
rm -rf "$out/run"  # else the run of another day would go on
clip train --train-data "$data/lmdb/train" --val-data "$data/lmdb/valid" --logs "$out" --name run "${training[@]}"
model=$out/run/checkpoints/epoch_latest.pt

mkdir -p "$test"
cp "$data/test_texts.jsonl" "$test/texts.jsonl"
clip extract-features --resume "$model" --extract-image-feats --image-data "$data/lmdb/test/imgs" \
  --image-feat-output-path "$test/image_features.jsonl"
features "$test/texts.jsonl"
clip make-topk --image-feats "$test/image_features.jsonl" --text-feats "$test/texts_features.jsonl" \
  --output "$test/predictions.jsonl"
clip evaluation "$test/texts.jsonl" "$test/predictions.jsonl" "$test/recall.json"

for i in "${!queries[@]}"; do
  printf '{"text_id": %d, "text": "%s"}\n' "$((i + 1))" "${queries[$i]}"
done >"$test/queries.jsonl"
features "$test/queries.jsonl"
clip make-topk --image-feats "$test/image_features.jsonl" --text-feats "$test/queries_features.jsonl" \
  --output "$test/answers.jsonl"
clip picture-sheet --predictions "$test/answers.jsonl" --image-data "$data/lmdb/test/imgs" \
  --text-data "$test/queries.jsonl" --output "$out/answers.png"

echo
echo "[demo] recall on the test split: $(cat "$test/recall.json")"
echo "[demo] the answers as a picture: $out/answers.png; the model: $model"
echo "[demo] $((SECONDS - start)) s"
