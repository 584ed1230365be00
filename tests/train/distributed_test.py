"""Runs of several processes, started as launchers start them: what the ranks test together, what is left when one is
lost, and the program with --nproc against one process."""

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

RANKS = os.environ["STROBE_TRAIN_RANKS"]
PROGRAM = os.environ.get("STROBE_PROGRAM")
LIMIT = 60  # seconds, for what takes a few on a machine at rest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(rank, size):
    return {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}


def mpirun(rank, size):
    return {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": size, "OMPI_COMM_WORLD_LOCAL_RANK": rank,
            "OMPI_COMM_WORLD_LOCAL_SIZE": size}


def srun(rank, size):
    return {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank, "SLURM_NODEID": 0,
            "SLURM_STEP_TASKS_PER_NODE": size, "SLURM_STEP_NODELIST": "127.0.0.1,other[1-3]", "SLURM_JOB_ID": 17}


def start(size, *arguments, launcher=torchrun, **variables):
    port = free_port()
    outside = {name: value for name, value in os.environ.items()
               if not re.match("RANK|WORLD|LOCAL|OMPI|SLURM|STROBE_TEST_CUDA", name)}
    shared = {**outside, "MASTER_PORT": port, "OMP_NUM_THREADS": 1, **variables}
    return [subprocess.Popen([RANKS, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={name: str(value) for name, value in {**shared, **launcher(rank, size)}.items()})
            for rank in range(size)]


def finish(processes):
    """[(status, stdout, stderr)] of all; none may hang."""
    try:
        outputs = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs)]


@pytest.fixture
def training(tmp_path):
    """Processes in the middle of a training."""
    started = []

    def start_training(size, *words, **variables):
        started.extend(start(size, "train", tmp_path, *words, **variables))
        for process in started:
            assert process.stdout.readline() == "training\n", process.communicate()[1]
        return started

    yield start_training
    for process in started:
        process.kill()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_test_together(size):
    for status, stdout, stderr in finish(start(size)):
        assert status == 0, stdout + stderr


@pytest.mark.parametrize("launcher", [mpirun, srun])
def test_other_launchers(launcher):
    for status, stdout, stderr in finish(start(2, "--gtest_filter=Communicator.*", launcher=launcher)):
        assert status == 0 and "[  PASSED  ] 2 tests." in stdout, stdout + stderr


def test_torchrun_keeps_the_store():
    # What --standalone means, but by address: a container need not know the name localhost.
    command = [pathlib.Path(sys.executable).with_name("torchrun"), "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0",
               "--local-addr=127.0.0.1", "--nproc-per-node=2", "--no-python", RANKS, "--gtest_filter=Communicator.*"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT)
    assert done.returncode == 0 and done.stdout.count("[  PASSED  ] 2 tests.") == 2, done.stdout


@pytest.mark.parametrize("rank, complaint", [(0, "expected 2 processes, found none of rank 1 within 1 s"),
                                             (1, r"the store at 127.0.0.1:\d+ \(MASTER_ADDR, MASTER_PORT\) cannot be reached")])
def test_a_rank_that_does_not_come_is_named(rank, complaint):
    processes = start(2, "alone")
    processes[1 - rank].kill()
    processes[1 - rank].wait()
    status, _, stderr = finish(processes)[rank]
    assert status == 1 and re.search(complaint, stderr), stderr


@pytest.mark.parametrize("size, lost", [(2, 1), (2, 0), (3, 2)])
def test_a_killed_rank_is_named_by_the_others(training, size, lost):
    processes = training(size)
    processes[lost].send_signal(signal.SIGKILL)
    since = time.monotonic()
    for rank, (status, _, stderr) in enumerate(finish(processes)):
        assert rank == lost or (status == 1 and f"rank {lost} of {size} is gone" in stderr), stderr
    assert time.monotonic() - since < 30


def test_a_standstill_of_the_machine_is_nobodys_silence(training):
    processes = training(3)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    processes[2].kill()
    time.sleep(1.5)  # beyond the silence that makes a process lost
    processes[0].send_signal(signal.SIGCONT)
    time.sleep(0.3)
    processes[1].send_signal(signal.SIGCONT)
    for status, _, stderr in finish(processes)[:2]:
        assert status == 1 and "rank 2 of 3 is gone" in stderr, stderr


def test_a_frozen_rank_ends_the_run(training):
    processes = training(2)
    processes[1].send_signal(signal.SIGSTOP)
    stderr = processes[0].communicate(timeout=LIMIT)[1]
    assert processes[0].returncode not in (0, None) and "rank 1 of 2 is gone" in stderr, stderr


def test_a_rank_that_fails_tells_the_others_why(training):
    results = finish(training(3, "throw"))
    assert [status for status, _, _ in results] == [1, 1, 1], results
    assert "error: bad data, says the test" in results[2][2]
    for _, _, stderr in results[:2]:
        assert "rank 2 of 3 failed: bad data, says the test" in stderr


def test_a_signal_to_one_ends_all(training):
    processes = training(2)
    processes[1].send_signal(signal.SIGTERM)
    assert [status for status, _, _ in finish(processes)] == [128 + signal.SIGTERM] * 2


two_gpus = pytest.mark.skipif(not os.environ.get("STROBE_TEST_CUDA"), reason="wants STROBE_TEST_CUDA=1 and two GPUs")


@two_gpus
def test_nccl_ranks_test_together():
    for status, stdout, stderr in finish(start(2, STROBE_TEST_CUDA=1)):
        assert status == 0, stdout + stderr


@two_gpus
@pytest.mark.parametrize("lost", [0, 1])
def test_nccl_names_a_killed_rank(training, lost):
    processes = training(2, STROBE_TEST_CUDA=1)
    processes[lost].send_signal(signal.SIGKILL)
    status, _, stderr = finish(processes)[1 - lost]
    assert status not in (0, None) and f"rank {lost} of 2 is gone" in stderr, stderr


# --- the program -----------------------------------------------------------------------------------------------------

SHORT = ("--d-model 32 --heads 2 --d-ff 64 --layers 1 --dropout 0 --batch-size 25 --schedule constant --lr 1e-3 "
         "--warmup 0 --seed 3 --device cpu --precision fp32 --bleu-tokenize char").split()


def strobe(*arguments, status=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=LIMIT)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def data():
    draw = random.Random(1)
    words = {"one": "一", "two": "二", "red": "红", "big": "大", "dog": "狗", "cat": "猫", "sun": "日", "sea": "海"}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part, count in (("train", 230), ("dev", 20), ("test", 20)):
            pairs = [draw.choices(list(words), k=draw.randint(2, 6)) for _ in range(count)]
            lines = (f"{' '.join(pair)}\t{''.join(words[word] for word in pair)}\n" for pair in pairs)
            (folder / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
        strobe("nmt", "prepare", "--data", folder / "data", "--vocab-size", 40,
               *(x for part in ("train", "dev", "test") for x in (f"--{part}", folder / f"{part}.tsv")))
        yield folder / "data"


def losses(folder):
    log = (folder / "train.log").read_text(encoding="utf-8")
    return [float(loss) for loss in re.findall(r"(?:Epoch: \d+, loss|Dev loss|Test loss): ([0-9.]+)", log)]


def test_two_processes_are_one_with_twice_the_batches(data, tmp_path):
    strobe("nmt", "train", "--data", data, *SHORT, "--epochs", 2, "--out", tmp_path / "two", "--nproc", 2)
    strobe("nmt", "train", "--data", data, *SHORT, "--epochs", 2, "--out", tmp_path / "one", "--accumulate", 2,
           "--threads", 1)
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    # Six printed decimals, and fp32 sums in another order: some 1e-7 of a gradient, times the rate 1e-3, in 10 updates.
    assert len(two) == 5 and two == pytest.approx(one, abs=2e-5)
    assert "Processes: 2" in (tmp_path / "two" / "train.log").read_text(encoding="utf-8")
    assert (tmp_path / "two" / "output.txt").exists()


def children_of(process):
    return [int(pid) for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_the_launcher_names_a_lost_process(data, tmp_path):
    launcher = subprocess.Popen([PROGRAM, "nmt", "train", "--data", data, *SHORT, "--epochs", "100000",
                                 "--validate-every", "0", "--out", tmp_path, "--nproc", "2"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "Epoch: 1, loss" not in launcher.stdout.readline():
        assert launcher.poll() is None, launcher.communicate()
    of_rank = {pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0RANK=")[1][:1]: pid
               for pid in children_of(launcher)}
    os.kill(of_rank[b"1"], signal.SIGKILL)
    stderr = launcher.communicate(timeout=LIMIT)[1]
    assert launcher.returncode == 128 + signal.SIGKILL
    assert f"rank 1 of 2 (pid {of_rank[b'1']}) was ended by signal 9 (Killed)" in stderr
    assert "error: data parallel: rank 1 of 2 is gone" in stderr


def test_a_signal_stops_the_launcher_and_all_it_started(data, tmp_path):
    launcher = subprocess.Popen([PROGRAM, "nmt", "train", "--data", data, *SHORT, "--epochs", "100000",
                                 "--validate-every", "0", "--out", tmp_path, "--nproc", "2"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "Epoch: 1, loss" not in launcher.stdout.readline():
        assert launcher.poll() is None, launcher.communicate()
    for pid in children_of(launcher):  # as a scheduler does that signals every process
        os.kill(pid, signal.SIGTERM)
    launcher.send_signal(signal.SIGTERM)
    stdout, stderr = launcher.communicate(timeout=LIMIT)
    assert launcher.returncode == 128 + signal.SIGTERM, stderr
    assert "Stopped by Terminated" in stdout and (tmp_path / "last.pt").exists()


def test_the_launcher_refuses_to_start_under_another(tmp_path):
    done = subprocess.run([PROGRAM, "nmt", "train", "--data", tmp_path, "--nproc", "2"], stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "RANK": "0"})
    assert done.returncode == 1 and "--nproc" in done.stderr and "RANK" in done.stderr


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
