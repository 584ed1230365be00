"""The name flash_attn over strobe's kernels: what flash-attn 2 offers here, flash-attn 1's in flash_attn.flash_attention,
flash_attn.flash_attn_interface and flash_attn.bert_padding.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    _installed = version("flash-attn")
except PackageNotFoundError:
    pass
else:
    raise ImportError(f"strobe-flash-attn stands in for flash-attn, and flash-attn {_installed} is installed as well; one of them "
                      "has to go: pip uninstall strobe-flash-attn flash-attn, then install the one that is wanted")

from strobe.flash_attn_2 import *  # noqa: E402, F403
from strobe.flash_attn_2 import __all__ as __all__  # noqa: E402

__version__ = "2.6.3+strobe"  # whose interface this is, for programs that look
