#!/usr/bin/env python3
"""What rounding to int8 at random buys in the demo: Q-GaLore with both roundings, over learning rates and seeds.

A row is RATE-ROUNDING, as in 0.0025-nearest. As many runs at a time as --together says, each on one thread: no time is
measured. Prints a table, and as JSON on standard output {"rows": [{"id": .., "loss_mean": .., ..}]}. Reports of single
runs stay in --keep and are not run again by the same program. Standard library only.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import sys

import demo_runs

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = ROOT / "build/release/examples/llama/llama_demo"
TEXT = ROOT / "build/data/shakespeare.txt"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rates", nargs="+", default=["0.02", "0.0025"])
    add("--roundings", nargs="+", default=["stochastic", "nearest"])
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--steps", type=int, default=400)
    add("--gap", type=int, default=10)
    add("--together", type=int, default=2)
    add("--keep", type=pathlib.Path, default=ROOT / "build/rounding", metavar="FOLDER")
    return parser.parse_args()


def validation_loss(options, program, rate, rounding, seed):
    settings = ["--optimizer", "q_galore_adamw_8bit", "--gap", str(options.gap), "--steps", str(options.steps),
                "--lr", rate, "--rounding", rounding, "--seed", str(seed), "--threads", "1",
                "--sample", "0", "--html", "", "--checkpoint-every", "0"]
    loss = demo_runs.kept_report(options.keep, f"{rate}-{rounding}-{seed}", [str(DEMO), "--text", str(TEXT)], settings,
                                 program)["validation_loss"]
    return float("inf") if loss is None else loss  # a run that diverged


def main():
    options = arguments()
    options.keep.mkdir(parents=True, exist_ok=True)
    program = demo_runs.build_mark(DEMO)
    runs = [(rate, rounding, seed) for rate in options.rates for seed in options.seeds for rounding in options.roundings]
    with concurrent.futures.ThreadPoolExecutor(options.together) as pool:
        losses = dict(zip(runs, pool.map(lambda run: validation_loss(options, program, *run), runs)))
    rows = []
    print("validation loss, nats a byte: mean (each seed)", file=sys.stderr)
    for rate in options.rates:
        for rounding in options.roundings:
            seen = [losses[rate, rounding, seed] for seed in options.seeds]
            rows.append({"id": f"{rate}-{rounding}", "loss_mean": statistics.mean(seen), "losses": seen})
            print(f"{rows[-1]['id']:22s} {rows[-1]['loss_mean']:.3f} ({', '.join(f'{loss:.3f}' for loss in seen)})",
                  file=sys.stderr)
    json.dump({"steps": options.steps, "gap": options.gap, "seeds": options.seeds, "rows": rows}, sys.stdout, indent=2)


main()
