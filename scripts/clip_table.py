#!/usr/bin/env python3
"""The tables of docs/benchmarks.md from what `strobe bench clip --json` has written: scripts/clip_table.py FILE..."""
import json
import sys

# The speed-ups of https://github.com/OFA-Sys/Chinese-CLIP/blob/master/flash_attention_En.md.
PUBLISHED = {"RN50": 1.02, "ViT-B/16": 1.54, "ViT-L/14": 1.65, "ViT-L/14@336px": 2.38, "ViT-H/14": 1.50}
# Its seconds of a step without and with FlashAttention, GB a card without and with: eight A100 of 80 GB.
PUBLISHED_EIGHT = {"RN50": (1.710, 1.680, 79, 75), "ViT-B/16": (1.477, 0.960, 80, 56), "ViT-L/14": (1.293, 0.785, 77, 50),
                   "ViT-L/14@336px": (1.397, 0.587, 78, 37), "ViT-H/14": (1.265, 0.845, 76, 57)}
OURS = ("dotscale", "flash_attn", "imp_flash_attn")
PEERS = (("cn_clip_materialised", "cn_clip, materialised"), ("cn_clip", "cn_clip as it is"),
         ("transformers", "transformers, compiled"))
PARTS = ("attention", "matrix", "pointwise", "optimiser", "host")


def read(files):
    """{(size, contender): row}; a later file's rows replace an earlier one's where they were measured."""
    rows = {}
    for file in files:
        for row in json.load(open(file))["rows"]:
            key = row["size"], row["attn_type"]
            if row["gpus"] == 1 and (row["ms"] is not None or key not in rows):
                rows[key] = {**rows.get(key, {}), **row}
    return rows


def cell(row):
    if row is None or row["ms"] is None:
        return ""
    return f"{row['ms']:.0f} ({row['peak_gib']:.1f})"


def times(rows, size, of, against):
    a, b = rows.get((size, against)), rows.get((size, of))
    return f"{a['ms'] / b['ms']:.2f}" if a and b and a["ms"] and b["ms"] else ""


def line(cells):
    return "| " + " | ".join(cells) + " |"


def several_gpus(files):
    """For each number of GPUs above one: both types beside the published figures, and the efficiency."""
    rows = {(row["size"], row["attn_type"], row["gpus"]): row
            for file in files for row in json.load(open(file))["rows"] if row["ms"] is not None}
    for gpus in sorted({key[2] for key in rows} - {1}):
        print(line([f"ms (peak GiB a GPU) on {gpus} GPUs", "dotscale", "imp_flash_attn", "times", "efficiency of both",
                    "published: 8 A100, ms (GB)", "times"]))
        print("|---" * 7 + "|")
        for size in PUBLISHED:
            pair = [rows.get((size, name, gpus)) for name in ("dotscale", "imp_flash_attn")]
            if not any(pair):
                continue
            batch = next(row["batch"] for row in pair if row)
            faster = f"{pair[0]['ms'] / pair[1]['ms']:.2f}" if all(pair) else ""
            efficiency = ", ".join(f"{100 * row['efficiency']:.1f} %" for row in pair if row and "efficiency" in row)
            without, with_it, gb_without, gb_with = PUBLISHED_EIGHT[size]
            published = f"{1000 * without:.0f} ({gb_without}) → {1000 * with_it:.0f} ({gb_with})"
            print(line([f"{size}, {batch} × {gpus}", *map(cell, pair), faster, efficiency, published, f"{PUBLISHED[size]:.2f}"]))
        print()


def main(files):
    several_gpus(files)
    rows = read(files)
    sizes = [size for size in PUBLISHED if any(key[0] == size for key in rows)]
    names = [*OURS, *(title for _, title in PEERS)]
    print(line(["ms (peak GiB)", *names]))
    print("|---" * (len(names) + 1) + "|")
    for size in sizes:
        batch = next(row["batch"] for key, row in rows.items() if key[0] == size)
        cells = [cell(rows.get((size, name))) for name in (*OURS, *(name for name, _ in PEERS))]
        print(line([f"{size}, {batch}", *cells]))
    print()
    print(line(["times as fast as", *(title for _, title in PEERS), "dotscale", "published"]))
    print("|---" * (len(PEERS) + 3) + "|")
    for size in sizes:
        ratios = [times(rows, size, "imp_flash_attn", name) for name in (*(name for name, _ in PEERS), "dotscale")]
        print(line([size, *ratios, f"{PUBLISHED[size]:.2f}"]))
    print()
    print(line(["ms of a step", *PARTS]))
    print("|---" * (len(PARTS) + 1) + "|")
    for size in sizes:
        profile = rows.get((size, "imp_flash_attn"), {}).get("profile")
        if profile:
            print(line([size, *(f"{profile[part]:.1f}" for part in PARTS)]))


if __name__ == "__main__":
    main(sys.argv[1:])
