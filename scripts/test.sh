#!/usr/bin/env bash
# All tests from whatever state the checkout is in: scripts/test.sh cpu|cuda
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/test.sh cpu|cuda}
scripts/setup.sh "$preset" --tests
# The kernel library and its tests must build without libtorch; what they find is tested in the full build.
scripts/build.sh attention
# Without a GPU the CUDA kernels at least compile, without spills, where there is a compiler for them.
if [ "$preset" = cpu ] && { command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; }; then
  scripts/build.sh attention-cuda-64 strobe_attention strobe_pointwise
fi
scripts/build.sh "$preset"
start=$SECONDS
ctest --preset "$preset" --output-on-failure
echo "[test] run: $((SECONDS - start)) s"
