"""The wheels as they are handed out: what they hold, that they run, and what they say where they do not fit.

STROBE_WHEELS names the folder with both (scripts/wheel.sh); ctest sets it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

WHEELS = Path(os.environ["STROBE_WHEELS"])
RUN = """
import torch, strobe, flash_attn
from flash_attn.flash_attention import FlashMHA
q, k, v = (torch.randn(2, 9, 4, 16) for _ in range(3))
expected = torch.nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
torch.testing.assert_close(flash_attn.flash_attn_func(q, k, v), expected)
FlashMHA(64, 4)(torch.randn(2, 9, 64))
print(strobe.__file__, flash_attn.__file__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    wheels = list(map(str, WHEELS.glob("*.whl")))
    assert len(wheels) == 2
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, *wheels], check=True)
    return folder


def python(code, *folders):
    """Runs code where only the folders are added to this Python's packages."""
    environment = {name: value for name, value in os.environ.items() if name != "STROBE_OPS_LIBRARY"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")


def import_error(*folders, code="import strobe", **_):
    result = python(code, *folders)
    assert result.returncode == 1
    return result.stderr.strip().splitlines()[-1]


def test_runs(site):
    result = python(RUN, site)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(str(site)) == 2


def test_one_wheel_for_every_cpython(site):
    names = {re.sub(r"-[0-9.]+-", "-VERSION-", wheel.name) for wheel in WHEELS.glob("*.whl")}
    assert names == {"strobe-VERSION-py3-none-linux_x86_64.whl", "strobe_flash_attn-VERSION-py3-none-any.whl"}
    library = site / "strobe/libstrobe_ops.so"
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    assert not re.search(r"\b_?Py[A-Z]", symbols)
    for prefix, newest in (("GLIBC_", (2, 32)), ("GLIBCXX_", (3, 4, 29))):  # of GCC 11
        needed = {tuple(map(int, version.split("."))) for version in re.findall(rf"@{prefix}([0-9.]+)", symbols)}
        assert max(needed) <= newest, f"{prefix}{max(needed)}: docs/python.md names the oldest systems"


def test_library_finds_torch_beside_itself(site):
    dynamic = subprocess.run(["readelf", "-d", site / "strobe/libstrobe_ops.so"], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"(?:runpath|rpath): \[(.*)\]", dynamic) == ["$ORIGIN/../torch/lib"]


def test_types_come_along():
    with ZipFile(next(WHEELS.glob("strobe-*.whl"))) as wheel:
        assert "strobe/py.typed" in wheel.namelist()


def test_the_drop_in_refuses_beside_flash_attn(site, tmp_path):
    metadata = tmp_path / "flash_attn-2.8.3.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    message = import_error(site, tmp_path, code="import flash_attn")
    assert message.startswith("ImportError: strobe-flash-attn stands in for flash-attn, and flash-attn 2.8.3 is installed as well")


def test_a_torch_that_does_not_fit(site, tmp_path):
    (tmp_path / "torch.py").write_text('__version__ = "2.12.1"\n')
    assert import_error(tmp_path, site) == ("ImportError: strobe was built for torch 2.11, found 2.12.1: pip install 'torch==2.11.*'")


def test_no_torch(site):
    message = import_error(site, code="import sys; sys.modules['torch'] = None; import strobe")
    assert message.startswith("ImportError: strobe needs torch 2.11, found none that imports")


def test_a_library_that_does_not_load(site):
    message = import_error(site, code="import os; os.environ['STROBE_OPS_LIBRARY'] = '/etc/hostname'; import strobe")
    assert message.startswith("ImportError: strobe: /etc/hostname does not load beside torch 2.11")
