#!/usr/bin/env python3
"""A GaLore step of one layer, ours and galore_torch's, in turns: A B A B, a process each.

Runs build/release/bench/optim/galore_step_bench and bench/compare/galore_step_torch.py on the same shape with the same
number of threads, and prints as JSON the milliseconds of each turn and "ratio", the median over turns of theirs by ours.
A turn in which others took more than --max-foreign of the processors is taken again and does not count; nothing is
dropped for being slow or fast. Exits with 1 if no turn counts: a busy machine gives no number.
Needs the release build and the Python environment that bench/compare/setup.sh makes. Standard library only.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "compare"))

import machine_report  # noqa: E402


def arguments():
    venv = pathlib.Path(os.environ.get("LOWRANK_COMPARE_VENV", ROOT / "build" / "compare-venv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--layer", default="1B/attention", help="as bench/support/shapes.hpp names it")
    add("--shape", default="2048x2048x512", metavar="ROWSxCOLUMNSxRANK", help="of that layer")
    add("--executor", choices=("blas", "eigen"), default="blas")
    add("--threads", type=int, default=2)
    add("--turns", type=int, default=5, help="undisturbed turns wanted")
    add("--extra-turns", type=int, default=5, help="most further turns, in place of disturbed ones")
    add("--max-foreign", type=float, default=0.05)
    add("--ours", default=str(ROOT / "build/release/bench/optim/galore_step_bench"), metavar="BINARY")
    add("--python", default=str(venv / "bin/python"))
    options = parser.parse_args()
    for flag, program in (("--ours", options.ours), ("--python", options.python)):
        if not os.access(program, os.X_OK):
            parser.error(f"{flag} {program}: no such program; build the release preset, run bench/compare/setup.sh")
    return options


def ours(options):
    rows, columns, rank = options.shape.split("x")
    name = f"step/dense/{options.layer}/{rows}x{columns}/rank:{rank}/{options.executor}/threads:{options.threads}/"
    command = [options.ours, f"--benchmark_filter=^{name}", "--benchmark_format=json"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout or "{}").get("benchmarks", [])
    if len(found) != 1 or found[0].get("error_occurred"):
        raise SystemExit(f"{' '.join(command)}: {len(found)} benchmarks ran, expected one that succeeds")
    return found[0]["real_time"]


def theirs(options, folder):
    report = folder / "report.json"
    command = [options.python, str(ROOT / "bench/compare/galore_step_torch.py"), "--shape", options.shape, "--rounds", "3"]
    command += ["--refresh-rounds", "1", "--threads", str(options.threads), "--report", str(report)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads(report.read_text(encoding="utf-8"))["shapes"][0]["results"]["galore"]["ms"]


def main():
    options = arguments()
    turns, counted = [], []
    with tempfile.TemporaryDirectory() as name:
        while len(counted) < options.turns and len(turns) < options.turns + options.extra_turns:
            with machine_report.foreign_cpu(own=resource.RUSAGE_CHILDREN) as foreign:
                turn = {"ours_ms": ours(options), "theirs_ms": theirs(options, pathlib.Path(name))}
            turn |= {"ratio": turn["theirs_ms"] / turn["ours_ms"], "foreign_cpu_share": foreign.share}
            turns.append(turn)
            if foreign.share <= options.max_foreign:
                counted.append(turn)
            print(turn, file=sys.stderr, flush=True)
    if not counted:
        raise SystemExit(f"all {len(turns)} turns were disturbed: others took more than {options.max_foreign:.0%} of the processors")
    result = {"shape": options.shape, "executor": options.executor, "threads": options.threads, "turns": turns}
    result |= {"turns_counted": len(counted), "ratio": statistics.median(turn["ratio"] for turn in counted)}
    print(json.dumps(result, indent=2))


main()
