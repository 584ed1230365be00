#!/usr/bin/env bash
# The attention tests on this machine's GPU: its own path, the other paths as PTX, compute-sanitizer on small shapes.
# Needs nvcc, no libtorch. The log of each run lies beside the program that wrote it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh attention-cuda test_attention_cuda
scripts/build.sh attention-ptx test_attention_cuda
failed=0

run() {  # run NAME FOLDER COMMAND...
  local log=$2/$1.log
  shift 2
  local start=$SECONDS
  if "$@" >"$log" 2>&1; then
    echo "[gpu] passed in $((SECONDS - start)) s: $log"
  else
    echo "[gpu] FAILED: $log" && failed=1
  fi
  grep -E '^\[ (cases|error) |FAILED|ERROR SUMMARY' "$log" || true
}

own=build-attention-cuda/tests/attention
ptx=build-attention-ptx/tests/attention
run own $own $own/test_attention_cuda
for path in sm80 sm86 sm75; do
  run $path $ptx env STROBE_CUDA_PATH=$path $ptx/test_attention_cuda
done
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    run $tool $own compute-sanitizer --tool $tool --error-exitcode 1 $own/test_attention_cuda --gtest_filter=Lattice.Basic
    run $tool-sm75 $ptx env STROBE_CUDA_PATH=sm75 \
      compute-sanitizer --tool $tool --error-exitcode 1 $ptx/test_attention_cuda --gtest_filter=Lattice.Basic
  done
fi
exit $failed
