#!/usr/bin/env python3
"""Compares training runs by their logs: a line a run, or a line an epoch, or a plot of the losses as SVG.

  training_table.py RUN...              one line a run: seconds an epoch, tokens/s, peak memory, test BLEU
  training_table.py --epochs RUN...     one line an epoch: time, loss, dev loss and dev BLEU of every run
  training_table.py --svg FILE RUN...   the training and dev losses by epoch

RUN is an output folder of `strobe nmt train`; it is named after the folder. Needs nothing but Python's standard library.
"""
import argparse
import pathlib
import re
import statistics
import sys

NUMBER = r"([-+0-9.einfa]+)"
PATTERNS = {
    "epoch": re.compile(rf"Epoch: (\d+), loss: {NUMBER}, time: {NUMBER}"),
    "dev": re.compile(rf"Epoch: (\d+), Dev loss: {NUMBER}, Bleu Score: {NUMBER}"),
    "rate": re.compile(rf"Rate: {NUMBER} target tokens/s, padding: {NUMBER} %, peak memory: {NUMBER} MiB"),
    "test": re.compile(rf"Test loss: {NUMBER},  Bleu Score: {NUMBER}"),
}


class Run:
    """What one train.log says."""

    def __init__(self, folder: str):
        self.name = pathlib.Path(folder).name
        self.epochs: dict[int, dict[str, float]] = {}
        self.rates: list[float] = []
        self.peak_mib = 0.0
        self.test_loss = self.test_bleu = None
        log = pathlib.Path(folder) / "train.log"
        if not log.exists():
            sys.exit(f"training_table.py: {log}: expected the log of a training run, found no such file")
        for line in log.read_text(encoding="utf-8").splitlines():
            self._read(line)

    def _read(self, line: str) -> None:
        if match := PATTERNS["epoch"].search(line):
            row = self.epochs.setdefault(int(match[1]), {})
            row["loss"], row["seconds"] = float(match[2]), float(match[3])
        elif match := PATTERNS["dev"].search(line):
            row = self.epochs.setdefault(int(match[1]), {})
            row["dev_loss"], row["dev_bleu"] = float(match[2]), float(match[3])
        elif match := PATTERNS["rate"].search(line):
            self.rates.append(float(match[1]))
            self.peak_mib = max(self.peak_mib, float(match[3]))
        elif match := PATTERNS["test"].search(line):
            self.test_loss, self.test_bleu = float(match[1]), float(match[2])


def print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |")


def summary(runs: list[Run]) -> None:
    rows = []
    for run in runs:
        rows.append([
            run.name,
            str(len(run.epochs)),
            f"{statistics.mean(row['seconds'] for row in run.epochs.values()):.1f}",
            f"{statistics.mean(run.rates):,.0f}",
            f"{run.peak_mib:,.0f}",
            "-" if run.test_bleu is None else f"{run.test_bleu:.2f}",
        ])
    print_table(["run", "epochs", "s/epoch", "target tokens/s", "peak MiB", "test BLEU"], rows)


def by_epoch(runs: list[Run]) -> None:
    header = ["epoch"]
    for run in runs:
        header += [f"{run.name} s", "loss", "dev loss", "dev BLEU"]
    rows = []
    for epoch in sorted({epoch for run in runs for epoch in run.epochs}):
        row = [str(epoch)]
        for run in runs:
            values = run.epochs.get(epoch, {})
            for key, digits in (("seconds", 1), ("loss", 3), ("dev_loss", 3), ("dev_bleu", 2)):
                row.append(f"{values[key]:.{digits}f}" if key in values else "-")
        rows.append(row)
    print_table(header, rows)


def svg(runs: list[Run], file: str) -> None:
    """Lines over epochs: training loss solid, dev loss dashed."""
    width, height, left, bottom, top, right = 720, 400, 50, 40, 16, 16
    colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"]
    values = [row[key] for run in runs for row in run.epochs.values() for key in ("loss", "dev_loss") if key in row]
    last = max(max(run.epochs) for run in runs)
    low, high = min(values + [0.0]), max(values)

    def point(epoch: int, value: float) -> str:
        x = left + (width - left - right) * (epoch - 1) / max(1, last - 1)
        y = height - bottom - (height - bottom - top) * (value - low) / (high - low)
        return f"{x:.1f},{y:.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i in range(6):
        value = low + (high - low) * i / 5
        x, y = point(1, value).split(",")
        out.append(f'<line x1="{x}" y1="{y}" x2="{width - right}" y2="{y}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for epoch in range(1, last + 1, max(1, last // 10)):
        x, y = point(epoch, low).split(",")
        out.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{epoch}</text>')
    out.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">epoch (solid: training loss, dashed: dev loss)</text>')
    for i, run in enumerate(runs):
        colour = colours[i % len(colours)]
        for key, dash in (("loss", ""), ("dev_loss", ' stroke-dasharray="5,4"')):
            points = " ".join(point(epoch, row[key]) for epoch, row in sorted(run.epochs.items()) if key in row)
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        out.append(f'<text x="{width - right - 130}" y="{top + 14 + 16 * i}" fill="{colour}">{run.name}</text>')
    out.append("</svg>")
    pathlib.Path(file).write_text("\n".join(out) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", action="store_true", help="one line an epoch")
    parser.add_argument("--svg", metavar="FILE", help="write a plot of the losses")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    args = parser.parse_args()
    runs = [Run(folder) for folder in args.runs]
    if not all(run.epochs for run in runs):
        sys.exit("training_table.py: a run without one finished epoch")
    if args.svg:
        svg(runs, args.svg)
    elif args.epochs:
        by_epoch(runs)
    else:
        summary(runs)


if __name__ == "__main__":
    main()
