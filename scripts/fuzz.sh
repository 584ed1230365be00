#!/bin/sh
# Fuzzes a reader of untrusted bytes: scripts/fuzz.sh image|pair|checkpoint [SECONDS]. Needs clang++ with libFuzzer.
# Starts from tests/clip/fuzz/corpus/TARGET, which `ctest -R fuzz` replays; what is new is left in build/fuzz/TARGET.
set -eu
cd "$(dirname "$0")/.."
target=$1
seconds=${2:-600}
out=build/fuzz
torch=.venv/lib/python3.11/site-packages/torch
case $target in
image)
  sources=$(ls clip/image/*.cpp | grep -v transform.cpp)
  libraries="-ljpeg -lpng -lwebpdemux -lwebp"
  ;;
pair)
  sources="clip/data/base64.cpp clip/data/dataset.cpp clip/data/lmdb.cpp clip/data/pair_record.cpp
    train/pickle_nodes.cpp train/pickle_reader.cpp train/value.cpp"
  libraries="-llmdb -L$torch/lib -Wl,-rpath,$PWD/$torch/lib -lc10 -ltorch_cpu"
  ;;
checkpoint)
  sources="clip/checkpoint/hugging_face.cpp clip/checkpoint/safetensors.cpp clip/checkpoint/state.cpp
    clip/checkpoint/towers.cpp clip/model/config.cpp train/atomic_file.cpp train/checkpoint.cpp train/mapped_file.cpp
    train/pickle_nodes.cpp train/pickle_reader.cpp train/pickle_writer.cpp train/value.cpp train/zip_archive.cpp"
  libraries="-L$torch/lib -Wl,-rpath,$PWD/$torch/lib -lc10 -ltorch_cpu"
  ;;
*)
  echo "scripts/fuzz.sh: expected image, pair or checkpoint, found $target" >&2
  exit 2
  ;;
esac
mkdir -p "$out/$target"
# shellcheck disable=SC2086  # lists of words
clang++ -std=c++20 -O2 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DFMT_HEADER_ONLY -I. -Iinclude \
  -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" "tests/clip/fuzz/${target}_fuzz.cpp" $sources $libraries -o "$out/$target-fuzzer"
exec "$out/$target-fuzzer" -max_total_time="$seconds" -rss_limit_mb=4096 -malloc_limit_mb=2048 -timeout=20 -max_len=65536 \
  -artifact_prefix="$out/$target-" "$out/$target" "tests/clip/fuzz/corpus/$target"
