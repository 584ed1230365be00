"""Loads libstrobe_ops, which registers torch.ops.strobe.*, or says in one sentence why it cannot."""

import os
from pathlib import Path

TORCH = "2.11"  # The operators use libtorch's C++ interface, which holds for one minor version.


def load() -> None:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"strobe needs torch {TORCH}, found none that imports ({error}): pip install 'torch=={TORCH}.*'") from error
    if torch.__version__.split(".")[:2] != TORCH.split("."):
        raise ImportError(f"strobe was built for torch {TORCH}, found {torch.__version__}: pip install 'torch=={TORCH}.*'")
    # A build tree's library, for those who work on strobe itself.
    library = os.environ.get("STROBE_OPS_LIBRARY") or Path(__file__).parent / "libstrobe_ops.so"
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        kind = f"with CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise ImportError(f"strobe: {library} does not load beside torch {torch.__version__}, which is built {kind}: {error}. "
                          "A wheel of strobe with CUDA kernels needs torch with CUDA 13; the wheel for the CPU runs with any build."
                          ) from error
