#!/usr/bin/env bash
# Configures and builds one preset and says how long each took: scripts/build.sh PRESET [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/build.sh PRESET [TARGET...]}
shift
export CCACHE_DIR=$PWD/.cache/ccache
options=()
command -v ccache >/dev/null && options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
if [[ $preset == *cuda* || $preset == *-ptx ]] && ! command -v nvcc >/dev/null; then
  for nvcc in /usr/local/cuda/bin/nvcc .venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc; do
    if [ -x "$nvcc" ]; then
      options+=("-DCMAKE_CUDA_COMPILER=$(realpath "$nvcc")")
      break
    fi
  done
fi
start=$SECONDS
cmake --preset "$preset" "${options[@]}"
echo "[build] configure $preset: $((SECONDS - start)) s"
start=$SECONDS
cmake --build --preset "$preset" ${1:+--target "$@"}
echo "[build] compile $preset: $((SECONDS - start)) s"
