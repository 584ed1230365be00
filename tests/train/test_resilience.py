"""What kills and full disks leave of a run: nothing lost but the time."""

import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from checkpoints import expect_equal

TOOL = os.environ["STROBE_TRAIN_TOOL"]
SEED = int(os.environ.get("STROBE_TEST_SEED", "20260"))


@pytest.fixture
def folder():
    """In memory where there is such a place: the runs sync each checkpoint to the disk."""
    parent = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=parent) as path:
        yield pathlib.Path(path)


def start(run, **options):
    """A process that is training."""
    resume = ["resume"] if (run / "last.pt").exists() else []
    process = subprocess.Popen([TOOL, "train", str(run), *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, **options)
    assert process.stdout.readline() == "training\n", process.communicate()[1]
    return process


def test_killed_ten_times_it_ends_as_if_never(folder):
    generator = random.Random(SEED)
    print("seed", SEED)
    straight, killed = folder / "straight", folder / "killed"
    process = start(straight)
    assert process.communicate() == ("", "") and process.returncode == 0
    updates = []
    for _ in range(10):
        process = start(killed)
        time.sleep(generator.uniform(0, 0.08))
        process.kill()
        process.communicate()
        assert process.returncode == -9, "the run ended before it was killed"
        if (killed / "last.pt").exists():
            updates.append(torch.load(killed / "last.pt", weights_only=True)["trainer"]["update"])
    print("killed after updates", updates)
    assert updates == sorted(updates) and updates[-1] > updates[0]
    process = start(killed)
    assert process.communicate() == ("", "") and process.returncode == 0
    names = sorted(path.name for path in straight.iterdir())
    assert sorted(path.name for path in killed.iterdir()) == names
    files = [name for name in names if name.endswith((".pt", ".pth"))]
    assert len(files) == 5  # last.pt, model.pth, three kept
    for name in files:
        content = torch.load(straight / name, weights_only=True)
        assert content["trainer"]["best_score"] is not None and content["trainer"]["random"]["cpu"].numel() > 0
        expect_equal(torch.load(killed / name, weights_only=True), content, name)


def expect_whole(run, before):
    """The run failed at a later checkpoint: an earlier one is whole, and no half one lies beside it."""
    assert torch.load(run / "last.pt", weights_only=True)["trainer"]["update"] >= before
    assert not list(run.glob("*.tmp"))


def test_a_limit_on_files_ends_the_run_and_leaves_the_last_checkpoint(folder):
    run = folder / "run"
    process = start(run)
    while not (run / "last.pt").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = torch.load(run / "last.pt", weights_only=True)["trainer"]["update"]
    size = (run / "last.pt").stat().st_size
    process = start(run, restore_signals=False,  # Python ignores SIGXFSZ, and so does its child then
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)))
    error = process.communicate()[1]
    assert process.returncode == 1
    assert f"file {run}/checkpoint-" in error and "cannot be written: File too large" in error
    expect_whole(run, before)


# $1 is the mount point, $2 where the run is copied to; the rest is the command.
FULL_DISK = """
mount -t tmpfs -o size=512k none "$1" || exit 77
disk=$1 out=$2; shift 2
"$@" & pid=$!
for i in $(seq 500); do [ -e "$disk/run/last.pt" ] && break; sleep 0.01; done
cat /dev/zero > "$disk/filler" 2>/dev/null
wait $pid; status=$?
cp -r "$disk/run" "$out"
exit $status
"""


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(folder):
    disk, out = folder / "disk", folder / "out"
    disk.mkdir()
    done = subprocess.run(["unshare", "-rm", "bash", "-c", FULL_DISK, "bash", str(disk), str(out), TOOL, "train",
                           str(disk / "run")], capture_output=True, text=True, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mounts in a namespace of our own here: " + done.stderr.strip())
    assert done.returncode == 1, done.stderr
    assert f"file {disk}/run/" in done.stderr
    assert "cannot be written: No space left on device" in done.stderr
    expect_whole(out, 1)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-s", "-p", "no:cacheprovider"]))
