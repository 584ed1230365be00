# Thin front of the CMake presets: installs what is missing, builds, runs. `make help` lists the targets.
# CPU build, unless a GPU is visible or STROBE_CUDA=1 (STROBE_CUDA=0 forces the CPU build).
STROBE_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 0)
PRESET := $(if $(filter 1,$(STROBE_CUDA)),cuda,cpu)

.PHONY: all setup demo demo-clip wheel test asan format clean help

all: setup  ## build the program: build/strobe
	scripts/build.sh $(PRESET) strobe strobe_ops

setup:  ## install what is missing: system packages, libtorch into .venv
	scripts/setup.sh $(PRESET)

demo: all  ## train the three attention types on the built-in corpus and compare them
	scripts/demo.sh

demo-clip: all  ## train a small Chinese-CLIP on emoji and answer Chinese queries with pictures
	scripts/demo_clip.sh

wheel: setup  ## the Python wheels, strobe and the drop-in for flash_attn: build/wheels/
	scripts/wheel.sh $(PRESET)

test:  ## install the test oracles too, build, run every test
	scripts/test.sh $(PRESET)

asan: setup  ## the C++ tests of the kernel library and the operators under AddressSanitizer and UBSan
	scripts/build.sh asan test_attention test_ops test_train
	cd build-asan && ASAN_OPTIONS=detect_leaks=0 ctest --output-on-failure -R '^(attention|ops|train)$$'

format:  ## clang-format over all sources
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format -i

clean:  ## remove the builds, keep the environments and downloads
	rm -rf build build-*

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort
