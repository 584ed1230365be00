"""Runs every shell command of docs/nmt.md, in the page's order, in one folder that holds two small text files to begin with.

STROBE_PROGRAM names the program. Trainings are cut short by a configuration file, which the page's own flags win over.
"""

import os
import pathlib
import random
import re
import subprocess
import sys

import pytest

PROGRAM = os.environ["STROBE_PROGRAM"]
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "nmt.md"
WORDS = dict(zip("one two three four five six seven eight nine ten red green blue dog cat bird sun moon big small".split(),
                 "一二三四五六七八九十红绿蓝狗猫鸟日月大小"))
SHORT = """
device = "cpu"
threads = 2
d-model = 32
heads = 2
d-ff = 64
layers = 1
batch-size = 32
max-updates = 12
warmup = 4
epochs = 2
save-every = 4
keep-last = 3
"""
# Trainings on the page get the short configuration unless they bring one.
WRAPPER = """#!/bin/bash
if [[ "$1 $2" == "nmt train" && "$*" != *--config* ]]; then set -- "$@" --config "{config}"; fi
exec "{program}" "$@"
"""


def commands():
    """The commands of the page's sh blocks: lines, with those that end in a backslash joined to the next."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    draw = random.Random(1)
    pairs = set()
    while len(pairs) < 400:
        words = draw.choices(list(WORDS), k=draw.randint(2, 6))
        pairs.add((" ".join(words), "".join(WORDS[word] for word in words)))
    ordered = sorted(pairs, key=lambda pair: draw.random())
    (folder / "text.en").write_text("".join(f"{en}\n" for en, _ in ordered), encoding="utf-8")
    (folder / "text.zh").write_text("".join(f"{zh}\n" for _, zh in ordered), encoding="utf-8")
    (folder / "short.toml").write_text(SHORT, encoding="utf-8")
    wrapper = folder / "bin" / "strobe"
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER.format(config=folder / "short.toml", program=PROGRAM), encoding="utf-8")
    wrapper.chmod(0o755)
    return folder


def test_the_page_has_commands():
    assert len(commands()) >= 15
    names = {match[1] for command in commands() for match in re.finditer(r"strobe nmt ([a-z-]+)", command)}
    assert names == {"prepare", "train", "test", "translate", "score", "average"}


@pytest.mark.parametrize("number", range(len(commands())))
def test_every_command_runs(folder, number):
    command = commands()[number]
    environment = dict(os.environ, PATH=f"{folder / 'bin'}:{os.environ['PATH']}", GOMP_SPINCOUNT="1000")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
