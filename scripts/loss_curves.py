#!/usr/bin/env python3
"""Loss curves of `strobe clip train` with the materialised attention and with FlashAttention-2, several seeds each: does the
choice of the attention change a curve more than the choice of the seed does?

    scripts/loss_curves.py --data LMDB --out FOLDER --json FILE [--gpus N] [option of `strobe clip train` ...]

LMDB has train/ and valid/ (`strobe clip demo-data`, then build-lmdb). The runs share the GPUs, a third of them on each of
three, say; a run whose log is there is not made again. The JSON has the mean losses of windows of steps.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

TYPES = {"materialised": "dotscale", "flash": "imp_flash_attn"}
COURSE = ["--vision-model", "ViT-B-16", "--text-model", "RoBERTa-wwm-ext-base-chinese", "--batch-size", "64", "--lr", "1e-4",
          "--wd", "0.001", "--warmup", "50", "--num-workers", "5", "--log-interval", "1", "--valid-epoch-interval", "9999"]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/strobe")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window", type=int, default=20)
    return parser.parse_known_args()


def losses(log):
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [float(loss) for loss in re.findall(r"Global Steps: .* \| Loss: ([0-9.]+) \|", text)]


def train(arguments, course):
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(arguments.gpus)))).split(",")
    running = []
    for seed in range(1, arguments.seeds + 1):
        for name, attn_type in TYPES.items():
            log = arguments.out / f"{attn_type}-{seed}.log"
            if len(losses(log)) == arguments.steps:
                continue
            command = [arguments.program, "clip", "train", "--train-data", arguments.data / "train", "--val-data",
                       arguments.data / "valid", "--logs", "None", "--max-steps", arguments.steps, "--attn-type", attn_type,
                       "--seed", seed, *COURSE, *course]
            gpu = visible[len(running) % arguments.gpus]
            with open(log, "w", encoding="utf-8") as file:
                running.append(subprocess.Popen(list(map(str, command)), stderr=file,
                                                env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu}))
    return max([process.wait() for process in running], default=0)


def compare(arguments):
    """Of each window the mean loss of each run, how far the seeds are apart, and how far flash is from the materialised run
    of the same seed and from the range of all of them."""
    curves = {name: [losses(arguments.out / f"{attn_type}-{seed}.log") for seed in range(1, arguments.seeds + 1)]
              for name, attn_type in TYPES.items()}
    for name, runs in curves.items():
        assert all(len(run) == arguments.steps for run in runs), f"{name}: {[len(run) for run in runs]} steps"
    rows = []
    for first in range(0, arguments.steps, arguments.window):
        means = {name: [statistics.fmean(run[first:first + arguments.window]) for run in runs]
                 for name, runs in curves.items()}
        base, flash = means["materialised"], means["flash"]
        rows.append({"steps": [first + 1, min(first + arguments.window, arguments.steps)], **means,
                     "seed_spread": max(base) - min(base),
                     "same_seed_difference": max(abs(a - b) for a, b in zip(base, flash)),
                     "mean_difference": statistics.fmean(flash) - statistics.fmean(base),
                     "inside": min(base) <= statistics.fmean(flash) <= max(base)})
    return rows


def main():
    arguments, course = options()
    arguments.out.mkdir(parents=True, exist_ok=True)
    status = train(arguments, course)
    if status != 0:
        return status
    rows = compare(arguments)
    inside = sum(row["inside"] for row in rows)
    result = {"what": "clip loss curves", "command": " ".join([arguments.program, "clip train", *COURSE, *course]),
              "steps": arguments.steps, "window": arguments.window, "seeds": arguments.seeds, "windows_inside": inside,
              "windows": rows}
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("steps        materialised (seeds)          flash (seeds)                 spread  same seed")
    for row in rows:
        runs = ["".join(f"{loss:9.4f}" for loss in row[name]) for name in TYPES]
        print(f"{row['steps'][0]:4}-{row['steps'][1]:<4}{runs[0]} {runs[1]}  {row['seed_spread']:8.4f}  "
              f"{row['same_seed_difference']:8.4f}{'' if row['inside'] else '  outside'}")
    print(f"{inside} of {len(rows)} windows: the mean of flash lies inside the spread of the materialised seeds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
