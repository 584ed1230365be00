"""STROBE_TEST_DEVICE=cuda runs the same tests on a GPU."""

import os
from collections import Counter

import pytest
import torch

DEVICE = os.environ.get("STROBE_TEST_DEVICE", "cpu")
DTYPES = [torch.float16, torch.bfloat16] if DEVICE == "cuda" else [torch.float32, torch.bfloat16]

if DEVICE == "cpu":
    torch.set_num_threads(1)  # the tensors are small
torch.set_default_device(DEVICE)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def pytest_configure(config):
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.exit("no GPU", returncode=77)  # ctest counts it as skipped
    config.addinivalue_line("markers", "flash_attn_2(outcome): a case of flash-attn 2's documented behaviour, 'passed' or 'refused'")


_cases: Counter[str] = Counter()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker = item.get_closest_marker("flash_attn_2")
    if marker and report.when == "call":
        _cases[marker.args[0] if report.passed else "failed"] += 1


def pytest_terminal_summary(terminalreporter):
    if _cases:
        terminalreporter.write_line("flash-attn 2's cases: " + ", ".join(f"{_cases[o]} {o}" for o in ("passed", "refused", "failed")))
