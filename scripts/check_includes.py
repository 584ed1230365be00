#!/usr/bin/env python3
"""Checks that every #include of ours points to the same layer or one below it, and that the kernel library is free of torch.

The layers and who may include whom are those of docs/architecture.md.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# layer -> the layers it may include besides itself
ALLOWED = {
    "include/strobe": [],
    "src/attention": ["include/strobe"],
    "src/pointwise": ["include/strobe"],
    "ops": ["include/strobe"],
    "nn": ["ops", "include/strobe"],
    "train": ["nn", "ops", "include/strobe"],
    "nmt": ["train", "nn", "ops", "include/strobe"],
    "clip": ["train", "nn", "ops", "include/strobe"],
    "bench": ["clip", "nmt", "train", "nn", "ops", "include/strobe"],
    "cli": ["bench", "clip", "nmt", "train", "nn", "ops", "include/strobe"],
}
TORCH_FREE = ("include/strobe", "src/attention", "src/pointwise")
TORCH_HEADER = re.compile(r"^(torch|ATen|c10|caffe2)/")
# Umbrella headers that cost seconds in every file that includes them.
SLOW_HEADERS = ("torch/torch.h", "torch/extension.h", "ATen/ATen.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def layer_of(path: str) -> str | None:
    if path.startswith("strobe/"):
        return "include/strobe"
    for layer in ALLOWED:
        if path.startswith(layer + "/"):
            return layer
    return None


def problems_of(file: str) -> list[str]:
    layer = layer_of(file)
    found = []
    for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        where = f"{file}:{number}"
        target = layer_of(header)
        if header in SLOW_HEADERS:
            found.append(f"{where}: {header}: include the narrow headers instead")
        elif TORCH_HEADER.match(header) and layer in TORCH_FREE:
            found.append(f"{where}: {header}: {layer} must stay free of torch")
        elif target is not None and layer is not None and target != layer and target not in ALLOWED[layer]:
            found.append(f"{where}: {header}: {layer} must not include {target}")
        elif quote == '"' and target is None and not file.startswith("tests/"):
            found.append(f"{where}: {header}: expected a path from the root of the checkout")
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "*.h", "*.cpp", "*.cu", "*.cuh"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    files = [name for name in listed if (ROOT / name).exists()]
    found = [problem for name in files for problem in problems_of(name)]
    print("\n".join(found) if found else f"include directions: {len(files)} files, no problem")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
