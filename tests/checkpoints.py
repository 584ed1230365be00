"""Comparing checkpoints."""

import torch


def expect_equal(found, expected, path=""):
    """Bit for bit, but for the clock's readings."""
    assert type(found) is type(expected), path
    if isinstance(expected, dict):
        assert list(found) == list(expected), path
        for key in expected:
            if key != "seconds":
                expect_equal(found[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for i, item in enumerate(expected):
            expect_equal(found[i], item, f"{path}/{i}")
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), path
    else:
        assert found == expected, path
