#!/usr/bin/env python3
"""A new basis, ours beside LAPACK's, Eigen's and PyTorch's, on the same gradient: A B A, a process each.

For every shape: bench/basis/refresh_speed (all of our ways and the exact SVDs of LAPACK and Eigen, in turns), then
bench/compare/refresh_torch.py with one and with all threads on the gradient that it wrote, then ours once more. Ratios
are against the fastest exact SVD of any library and against torch.svd_lowrank(niter=2), and take the mean of our two
turns, the one before and the one after theirs, so that a machine that becomes slower meanwhile favours nobody. Prints a
table to stderr and JSON to stdout: {"shapes": [{"id": "2048x2048x512", "ratios": {...}, ...}]}.
A turn in which others took more than --max-foreign of the processors is reported as disturbed.
Needs the release build of bench_basis_refresh_speed and the environment of bench/compare/setup.sh. Standard library only.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "compare"))

import machine_report  # noqa: E402

SHAPES = ("512x1376x128", "2048x2048x512", "2048x5461x512", "4096x4096x1024", "4096x11008x1024")
SLOW = 3 * 2048 * 2048  # elements from which Eigen's SVD takes minutes and torch's runs on all threads only


def arguments():
    venv = pathlib.Path(os.environ.get("LOWRANK_COMPARE_VENV", ROOT / "build" / "compare-venv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shapes", nargs="+", default=SHAPES, metavar="ROWSxCOLUMNSxRANK")
    add("--threads", type=int, default=os.cpu_count())
    add("--rounds", type=int, default=5)
    add("--max-foreign", type=float, default=0.08)
    add("--ours", default=str(ROOT / "build/release/bench/basis/refresh_speed"), metavar="BINARY")
    add("--python", default=str(venv / "bin/python"))
    options = parser.parse_args()
    for flag, program in (("--ours", options.ours), ("--python", options.python)):
        if not os.access(program, os.X_OK):
            parser.error(f"{flag} {program}: no such program; ./run bench basis/refresh_speed, bench/compare/setup.sh")
    return options


def elements(shape):
    rows, columns, _ = map(int, shape.split("x"))
    return rows * columns


def ours(options, shape, folder, more):
    report = folder / "ours.json"
    command = [options.ours, "--shape", shape, "--threads", str(options.threads), "--rounds", str(options.rounds)]
    subprocess.run(command + ["--json", str(report), *more], check=True, stdout=sys.stderr)
    return json.loads(report.read_text(encoding="utf-8"))


def theirs(options, shape, gradient, threads, svd):
    command = [options.python, str(ROOT / "bench/compare/refresh_torch.py"), str(gradient), "--shape", shape]
    command += ["--threads", str(threads), "--svd-rounds", str(svd)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(options, shape):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        gradient = folder / "gradient.bin"
        slow = elements(shape) > SLOW
        with machine_report.foreign_cpu(own=resource.RUSAGE_CHILDREN) as foreign:
            first = ours(options, shape, folder, ["--write", str(gradient)] + ([] if slow else ["--slow"]))
            torch = [theirs(options, shape, gradient, options.threads, 1)]
            torch.append(theirs(options, shape, gradient, 1, 0 if slow else 1))
            second = ours(options, shape, folder, ["--no-exact"])
    exact = {f"torch.svd {t['threads']}t": t["methods"]["svd"]["ms"] for t in torch if "svd" in t["methods"]}
    exact |= {name: first["methods"][name]["ms"] for name in ("gesdd", "bdcsvd") if name in first["methods"]}
    anchor = min(exact, key=exact.get)
    lowrank = min((t["methods"]["svd_lowrank"] for t in torch), key=lambda m: m["ms"])
    best = first["methods"]["gesdd"]["captured"]  # 1 to rounding; the energies of torch are in the units of the gradient
    time = {name: (first["methods"][name]["ms"] + second["methods"][name]["ms"]) / 2 for name in second["methods"] if "ms" in second["methods"][name]}
    share = {name: min(turn["methods"][name]["of_square_rate"] for turn in (first, second)) for name in time if name != "stale"}
    whole = next(t["methods"]["svd"]["energy"] for t in torch if "svd" in t["methods"])

    def departure(names):
        return max(turn["methods"][name]["departure"] for name in names for turn in (first, second))

    ratios = {
        "exact_by_plain": exact[anchor] / time["warm1plain"],
        "exact_by_warm1": exact[anchor] / time["warm1"],
        "exact_by_again": exact[anchor] / time["warm1again"],
        "exact_by_again7": exact[anchor] / time["warm1again7"],
        "exact_by_right": exact[anchor] / time["right"],
        "exact_by_warm2p8": exact[anchor] / time["warm2p8"],
        "lowrank_by_plain": lowrank["ms"] / time["warm1plain"],
        "lowrank_by_warm1": lowrank["ms"] / time["warm1"],
        "lowrank_by_again": lowrank["ms"] / time["warm1again"],
        "lowrank_by_again7": lowrank["ms"] / time["warm1again7"],
        "cold2_by_warm1": time["cold2"] / time["warm1"],
        "pair_of_square_rate": share["pair"],
        "plain_of_square_rate": share["warm1plain"],
        "warm1_of_square_rate": share["warm1"],
        "again_of_square_rate": share["warm1again"],
        "warm1_captured": min(turn["methods"]["warm1"]["captured"] for turn in (first, second)) / best,
        "warm1_captured_beyond_lowrank": first["methods"]["warm1"]["captured"] / best - lowrank["energy"] / whole,
        "again_captured_beyond_lowrank": first["methods"]["warm1again"]["captured"] / best - lowrank["energy"] / whole,
        "again7_captured_beyond_lowrank": first["methods"]["warm1again7"]["captured"] / best - lowrank["energy"] / whole,
        "wide_of_square_rate": share["warm1wide"],
        "worst_departure": departure(name for name in time if name != "pair"),
        "wide_departure": departure(["warm1wide"]),
    }
    return {
        "id": shape,
        "anchor": anchor,
        "exact_ms": exact,
        "svd_lowrank_ms": lowrank["ms"],
        "foreign_cpu_share": foreign.share,
        "disturbed": foreign.share > options.max_foreign,
        "ratios": ratios,
        "turns": [first, second],
        "torch": torch,
    }


def main():
    options = arguments()
    shapes = []
    for shape in options.shapes:
        shapes.append(measure(options, shape))
        one = shapes[-1]
        shown = {name: round(value, 4) for name, value in one["ratios"].items()}
        exact = one["exact_ms"][one["anchor"]]
        print(f"{shape}: anchor {one['anchor']} {exact:.0f} ms, foreign {one['foreign_cpu_share']:.2f}", shown,
              file=sys.stderr, flush=True)
    print(json.dumps({"shapes": shapes}, indent=1))


main()
