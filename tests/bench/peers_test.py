"""`strobe bench nmt` with its peers: nn.Transformer must find our loss and CTranslate2 our translations.

STROBE_PROGRAM names the program. The program refuses a peer whose loss or scores are not ours (its row then has an error
instead of a time); here the translations of random models must agree to the last token too.
"""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("beam", [1, 4])
def test_peers_compute_what_we_compute(beam, tmp_path):
    file = tmp_path / "rows.json"
    subprocess.run(
        [os.environ["STROBE_PROGRAM"], "bench", "nmt", "--attn_type", "imp_flash_attn", "--lengths", "9", "--vocabulary",
         "200", "--batch-size", "16", "--repetitions", "1", "--device", "cpu", "--beam", str(beam), "--peer-python",
         sys.executable, "--json", file], check=True)
    content = json.loads(file.read_text())
    rows = {row["attn_type"]: row for row in content["rows"]}
    assert set(rows) == {"imp_flash_attn", "nn.Transformer", "CTranslate2"}
    assert all("error" not in row for row in content["rows"]), content["rows"]
    assert rows["CTranslate2"]["agreement"] == 1.0
    assert rows["CTranslate2"]["tokens_per_s"] * rows["CTranslate2"]["ms"] == pytest.approx(16 * 9 * 1e3)
    assert set(content["versions"]) == {"torch", "ctranslate2"}


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
