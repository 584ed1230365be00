#!/usr/bin/env bash
# Installs what the build needs: system packages, libtorch from the PyPI wheel into .venv, and with --tests the originals
# that tests compare with into .venv-test. Nothing outside the checkout but system packages. Safe to repeat.
#   scripts/setup.sh cpu|cuda [--tests]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/setup.sh cpu|cuda [--tests]}
tests=${2:-}
export PIP_CACHE_DIR=$PWD/.cache/pip  # both environments need the same large wheel

step() {  # step NAME COMMAND...: runs the command and prints how long it took
  local name=$1 start=$SECONDS
  shift
  "$@"
  echo "[setup] $name: $((SECONDS - start)) s"
}

install_packages() {
  local os version list missing=()
  os=$(. /etc/os-release && echo "$ID")
  version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  list=scripts/packages/$os-$version.txt
  if [ ! -f "$list" ]; then
    echo "[setup] no package list for $os $version; taking the system's packages as they are (see scripts/packages/)" >&2
    return
  fi
  while read -r package; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done < <(grep -v '^#' "$list")
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "[setup] these packages are missing; run this, then repeat:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# make_venv FOLDER PACKAGES...: a virtual environment that holds exactly what its stamp says.
make_venv() {
  local folder=$1 stamp
  shift
  stamp="$* $(sha256sum requirements/constraints.txt | cut -d' ' -f1)"
  [ -f "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$stamp" ] && return
  python3 -m venv --clear "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -c requirements/constraints.txt "$@"
  echo "$stamp" >"$folder/stamp"
}

# The originals' vocabulary and zero-shot templates come with this wheel; what it requires is only for running it.
add_cn_clip() {
  compgen -G "$1/lib/python3.*/site-packages/cn_clip-*" >/dev/null && return
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -c requirements/constraints.txt cn_clip
}

step "system packages" install_packages
if [ "$build" = cuda ]; then
  wheels=(torch)
  # A machine with a GPU and no compiler for it gets the compiler from PyPI.
  if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
    wheels+=(nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl)
  fi
  step "libtorch with CUDA (.venv)" make_venv .venv "${wheels[@]}"
else
  # libtorch_cpu needs only these two of the wheel's CUDA dependencies.
  step "libtorch for the CPU (.venv)" make_venv .venv --no-deps torch nvidia-cuda-runtime nvidia-cuda-cupti
fi
step "cn_clip (.venv)" add_cn_clip .venv
if [ "$tests" = --tests ]; then
  step "test oracles (.venv-test)" make_venv .venv-test -r requirements/tests.txt
  step "cn_clip (.venv-test)" add_cn_clip .venv-test
fi
