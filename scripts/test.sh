#!/usr/bin/env bash
# All tests from whatever state the checkout is in: scripts/test.sh cpu|cuda
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: scripts/test.sh cpu|cuda}
scripts/setup.sh "$preset" --tests
# The kernel library and its tests must build without libtorch; what they find is tested in the full build.
scripts/build.sh attention
scripts/build.sh "$preset"
start=$SECONDS
ctest --preset "$preset" --output-on-failure
echo "[test] run: $((SECONDS - start)) s"
