#!/usr/bin/env python3
"""Markdown tables from the JSON of `strobe bench attention`.

  attention_table.py times FILE...    milliseconds of every implementation, and imp_flash_attn against the best of ATen's
  attention_table.py memory FILE...   peak memory by length
"""

import argparse
import json
import math

OURS = ("dotscale", "flash_attn", "imp_flash_attn")
ATEN = {"sdpa_cudnn": "cuDNN", "sdpa_flash": "FlashAttention-2", "sdpa_efficient": "memory-efficient", "sdpa_math": "math"}


def cases(files):
    """{case: {(backend, direction): row}} in the files' order."""
    found = {}
    for file in files:
        for row in json.load(open(file))["rows"]:
            found.setdefault(row["case"], {})[row["backend"], row["direction"]] = row
    return found


def short(ms):
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}"


def both(rows, backend):
    """Forward and backward."""
    cells = []
    for direction in ("fwd", "bwd"):
        row = rows.get((backend, direction))
        cells.append("" if row is None else "–" if row["ms"] is None else short(row["ms"]))
    return " / ".join(cells) if any(cells) else ""


def against(rows, others):
    """How much faster imp_flash_attn is than the fastest of the others."""
    cells = []
    for direction in ("fwd", "bwd"):
        ours = rows.get(("imp_flash_attn", direction), {}).get("ms")
        theirs = [rows[other, direction]["ms"] for other in others if rows.get((other, direction), {}).get("ms")]
        cells.append(f"{min(theirs) / ours:.2f}" if ours and theirs else "")
    return " / ".join(cells) if any(cells) else ""


def rate(rows):
    cells = [rows.get(("imp_flash_attn", direction), {}).get("tflops") for direction in ("fwd", "bwd")]
    return " / ".join(f"{cell:.0f}" if cell else "" for cell in cells)


def times(files):
    columns = [("imp_flash_attn", lambda rows: f"**{both(rows, 'imp_flash_attn')}**"), ("TFLOP/s", rate),
               ("flash_attn", lambda rows: both(rows, "flash_attn")), ("dotscale", lambda rows: both(rows, "dotscale")),
               ("cuDNN", lambda rows: both(rows, "sdpa_cudnn")), ("FlashAttention-2", lambda rows: both(rows, "sdpa_flash")),
               ("memory-efficient", lambda rows: both(rows, "sdpa_efficient")),
               ("× best of ATen", lambda rows: against(rows, ATEN)),
               ("× FlashAttention-2", lambda rows: against(rows, ["sdpa_flash"]))]
    table = {case: [cell(rows) for _, cell in columns] for case, rows in cases(files).items()}
    used = [i for i in range(len(columns)) if any(cells[i] for cells in table.values())]
    print("| fwd / bwd ms | " + " | ".join(columns[i][0] for i in used) + " |")
    print("|---" * (len(used) + 1) + "|")
    for case, cells in table.items():
        print(f"| {case} | " + " | ".join(cells[i] for i in used) + " |")


def memory(files):
    """The most of forward and backward, and how it grows between the two longest."""
    names = {**{name: name for name in OURS}, **ATEN}
    peaks = {name: {} for name in names}
    for rows in cases(files).values():
        for (backend, _), row in rows.items():
            if row["peak_mib"] is not None:
                length = row["seqlen_q"]
                peaks[backend][length] = max(peaks[backend].get(length, 0), row["peak_mib"])
    lengths = sorted({length for found in peaks.values() for length in found})
    shown = [name for name in names if peaks[name]]
    print("| peak MiB | " + " | ".join(names[name] for name in shown) + " |")
    print("|---" * (len(shown) + 1) + "|")
    for length in lengths:
        print(f"| N = {length:,} | " + " | ".join(f"{peaks[name][length]:,.1f}" if length in peaks[name] else "–" for name in shown) + " |")
    print("| grows as | " + " | ".join(f"N^{growth(peaks[name]):.2f}" for name in shown) + " |")


def growth(found):
    lengths = sorted(found)[-2:]
    return math.log(found[lengths[1]] / found[lengths[0]]) / math.log(lengths[1] / lengths[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("times", "memory"))
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    {"times": times, "memory": memory}[arguments.table](arguments.files)


if __name__ == "__main__":
    main()
