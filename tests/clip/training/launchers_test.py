"""Runs that a script of run_scripts/ starts with torchrun and with mpirun: when one process is killed the others name it, and
the run goes on from its last checkpoint.

STROBE_PROGRAM names the program. Skipped where a launcher is not installed.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from runs_test import LIMIT, PROGRAM, SCRIPTS, command, run, steps_of, write_data

SCRIPT = SCRIPTS / "muge_finetune_vit-b-16_rbt-base_flashattn.sh"
NAME = "muge_finetune_vit-b-16_roberta-base_bs128_8gpu_flashattn"
# The towers, data and lengths of a test in the places of the script's own: of an option that is given twice the last counts.
SMALL = ("--vision-model ViT-mini-16-96 --text-model BERT-mini-chinese --context-length 12 --batch-size 4 --valid-batch-size 4 "
         "--device cpu --threads 1 --num-workers 1 --valid-step-interval 999999 --valid-epoch-interval 999999 "
         "--save-step-frequency 3 --save-epoch-frequency 999999 --max-epochs 999999")
PROCESSES = 2


@pytest.fixture(scope="module")
def root():
    """What a user has: the data set and a checkpoint to begin with."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        root = pathlib.Path(path)
        write_data(root / "datasets/MUGE/lmdb")
        run(*command(root / "datasets/MUGE/lmdb", root, "--max-steps", 1, name="made"))
        (root / "pretrained_weights").mkdir()
        (root / "made/checkpoints/epoch_latest.pt").rename(root / "pretrained_weights/clip_cn_vit-b-16.pt")
        yield root


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(root, launcher, *more, **variables):
    program = root / "strobe"
    program.write_text(f"#!/bin/sh\nexec {PROGRAM} \"$@\" {SMALL} {' '.join(map(str, more))}\n")
    program.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not re.match("RANK|WORLD|LOCAL|MASTER|OMPI|SLURM", name)}
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(["bash", SCRIPT, root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**outside, "PATH": path, "STROBE": str(program), "LAUNCHER": launcher,
                                 "GPUS_PER_NODE": str(PROCESSES), "MASTER_PORT": str(free_port()),
                                 "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **variables})


def process_of_rank(root, rank):
    """Of all processes, the one that trains in `root` as this rank."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        is_ours = words[0] == PROGRAM.encode() and f"--logs={root}/experiments/".encode() in words
        if is_ours and {f"RANK={rank}".encode(), f"OMPI_COMM_WORLD_RANK={rank}".encode()} & set(environment):
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.parametrize("launcher", ["torchrun", "mpirun"])
def test_a_killed_rank_is_named_and_the_run_goes_on(root, launcher):
    if shutil.which(launcher) is None and not pathlib.Path(sys.executable).with_name(launcher).exists():
        pytest.skip(f"{launcher} is not installed")
    run_folder = root / "experiments" / NAME
    process = start(root, launcher)
    try:
        end = time.monotonic() + LIMIT
        while not (run_folder / "checkpoints/epoch_latest.pt").exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
        os.kill(process_of_rank(root, 1), signal.SIGKILL)
        output = process.communicate(timeout=LIMIT)[0]
    finally:
        process.kill()
    assert process.returncode != 0 and f"error: data parallel: rank 1 of {PROCESSES} is gone" in output, output
    assert re.search(r"rank +(: )?1\b", output.replace("rank 1 of", "")), output  # the launcher's own word
    last = max(int(found) for found in re.findall(r"epoch_latest.pt \(epoch \d+ @ (\d+) steps\)", output))
    process = start(root, launcher, "--max-steps", last + 2, CONTINUE="1")
    output = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, output
    assert "optimizer state is restored" in output and [step for step, _ in steps_of(output)] == [last + 1, last + 2]
    shutil.rmtree(run_folder)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
