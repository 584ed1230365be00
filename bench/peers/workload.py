"""What the peers of `strobe bench nmt` have in common: the workload that the benchmark wrote, and the talk with it.

The benchmark starts a peer as `python SCRIPT WORKLOAD --threads N --device D`, waits for its first line, then writes one
JSON object a line to its standard input and reads one a line from its standard output.
"""

import argparse
import json
import os
import sys


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", required=True)
    return parser.parse_args()


def serve(versions, commands):
    """Answers requests {"do": NAME, ...} with commands[NAME](**rest), a dict, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")  # libraries may print to standard output
    os.dup2(2, 1)
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:  # the benchmark shows it in the peer's row
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
