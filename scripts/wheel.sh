#!/usr/bin/env bash
# The Python wheels, strobe's own and the drop-in for flash_attn, into build/wheels/: scripts/wheel.sh cpu|cuda
# Sizes and seconds are printed. What builds them is pinned in python/pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/wheel.sh cpu|cuda}
export CCACHE_DIR=${CCACHE_DIR:-$PWD/.cache/ccache} PIP_DISABLE_PIP_VERSION_CHECK=1
export CXX=${CXX:-c++}  # as CMake names it by itself, so that ccache knows what scripts/build.sh compiled
command -v ccache >/dev/null && export CMAKE_CXX_COMPILER_LAUNCHER=ccache
options=(--config-settings=build-dir="$PWD/build/wheel-$preset")
if [ "$preset" = cuda ]; then
  options+=(--config-settings=cmake.define.STROBE_CUDA=ON)
  for nvcc in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc .venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc; do
    if [ -x "$nvcc" ]; then
      export CUDACXX
      CUDACXX=$(realpath "$nvcc")
      break
    fi
  done
fi
start=$SECONDS
rm -rf "build/wheels/$preset"
.venv/bin/pip wheel --quiet --no-deps --wheel-dir "build/wheels/$preset" "${options[@]}" ./python
.venv/bin/pip wheel --quiet --no-deps --wheel-dir "build/wheels/$preset" ./python/drop_in
for wheel in "build/wheels/$preset"/*.whl; do
  echo "[wheel] $wheel: $(($(stat -c %s "$wheel") / 1024)) KiB"
done
echo "[wheel] $preset: $((SECONDS - start)) s"
