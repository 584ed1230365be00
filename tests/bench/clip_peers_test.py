"""`strobe bench clip` with its peers: cn_clip and transformers must find our loss.

STROBE_PROGRAM names the program, which refuses a peer whose loss is not ours: its row then has an error instead of a
time.
"""

import json
import os
import subprocess
import sys

import pytest


def test_peers_compute_what_we_compute(tmp_path):
    file = tmp_path / "rows.json"
    subprocess.run(
        [os.environ["STROBE_PROGRAM"], "bench", "clip", "--size", "tiny", "--batch-size", "4", "--attn-type",
         "imp_flash_attn", "--repetitions", "1", "--steps", "1", "--device", "cpu", "--peer-python", sys.executable,
         "--peers", "cn_clip,cn_clip_materialised,transformers",
         "--json", file], check=True)
    content = json.loads(file.read_text())
    rows = {row["attn_type"]: row for row in content["rows"]}
    assert set(rows) == {"imp_flash_attn", "cn_clip", "cn_clip_materialised", "transformers"}
    assert all("error" not in row for row in content["rows"]), content["rows"]
    assert all(row["ms"] > 0 and row["batch"] == 4 for row in content["rows"])
    assert set(content["versions"]) == {"torch", "cn_clip", "transformers"}


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
