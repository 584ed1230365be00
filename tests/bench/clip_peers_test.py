"""`strobe bench clip` with its peers: cn_clip and transformers must find our loss; and in several processes.

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


def test_processes_beside_one_alone(tmp_path):
    file = tmp_path / "rows.json"
    subprocess.run(
        [os.environ["STROBE_PROGRAM"], "bench", "clip", "--gpus", "2", "--size", "tiny", "--batch-size", "2", "--attn-type",
         "imp_flash_attn", "--repetitions", "1", "--steps", "1", "--device", "cpu", "--json", file], check=True)
    alone, together = json.loads(file.read_text())["rows"]
    assert [row["gpus"] for row in (alone, together)] == [1, 2] and "efficiency" not in alone
    assert together["efficiency"] == pytest.approx(alone["ms"] / together["ms"]) and together["peak_gib"] > alone["peak_gib"]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
