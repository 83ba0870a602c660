#!/usr/bin/env python3
"""The same tuning effort for AdamW and for GaLore: the demo over a grid of learning rates, each at its best.

First the whole grid with the first seed; then the best rate and its neighbours with all seeds, until the rate with the
lowest mean validation loss has neighbours that were measured with all seeds too. Prints a table, and as JSON on standard
output the best rates, whether each is inside of its grid ("interior": 1 or 0), and "loss_ratio", GaLore's mean loss by
AdamW's. Reports of single runs stay in --keep and are not run again. Standard library only.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import sys

import demo_runs

ROOT = pathlib.Path(__file__).resolve().parent.parent


def rates(text):
    values = [float(part) for part in text.split(",")]
    if len(values) < 3 or values != sorted(set(values)) or values[0] <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: at least three rates, rising")
    return values


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--adamw", type=rates, default=rates("1e-3,2e-3,4e-3,8e-3,16e-3"), metavar="RATE,RATE,..")
    add("--galore", type=rates, default=rates("4e-3,8e-3,16e-3,32e-3,64e-3"), metavar="RATE,RATE,..")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--steps", type=int, default=400)
    add("--demo", type=shlex.split, default=[str(ROOT / "run"), "demo"], metavar="'...'", help="the program, with its text")
    add("--demo-args", type=shlex.split, default=[], metavar="'...'", help="further arguments, the same for every run")
    add("--keep", type=pathlib.Path, default=ROOT / "build/tuning", metavar="FOLDER")
    add("--report", type=pathlib.Path, metavar="FILE.json", help="write the JSON there too")
    return parser.parse_args()


class optimizer:
    def __init__(self, name, grid, options):
        self.name, self.grid, self.options = name, grid, options
        self.losses = {}  # (rate, seed) -> validation loss

    def measure(self, rate, seed):
        if (rate, seed) in self.losses:
            return
        options = self.options
        settings = ["--optimizer", self.name, "--lr", repr(rate), "--seed", str(seed), "--steps", str(options.steps)]
        settings += ["--sample", "0", "--html", "", "--checkpoint-every", "0", *options.demo_args]
        run = demo_runs.kept_report(options.keep, f"{self.name}-{rate:g}-{seed}", options.demo, settings)
        loss = run["validation_loss"]
        self.losses[rate, seed] = float("inf") if loss is None else float(loss)  # a run that diverged
        print(f"{self.name:14s} rate {rate:<8g} seed {seed}  validation loss {self.losses[rate, seed]:.4f}",
              file=sys.stderr, flush=True)

    def mean(self, rate):
        found = [self.losses.get((rate, seed)) for seed in self.options.seeds]
        return None if None in found else statistics.mean(found)

    def around(self, rate):
        at = self.grid.index(rate)
        return self.grid[max(0, at - 1):at + 2]

    def tune(self):
        first = self.options.seeds[0]
        for rate in self.grid:
            self.measure(rate, first)
        best = min(self.grid, key=lambda rate: self.losses[rate, first])
        while any(self.mean(rate) is None for rate in self.around(best)):
            for rate in self.around(best):
                for seed in self.options.seeds:
                    self.measure(rate, seed)
            best = min((rate for rate in self.grid if self.mean(rate) is not None), key=self.mean)
        return best

    def summary(self):
        best = self.tune()
        losses = [self.losses[best, seed] for seed in self.options.seeds]
        return {"best_rate": best, "interior": int(self.grid[0] < best < self.grid[-1]), "mean_loss": self.mean(best),
                "smallest_loss": min(losses), "largest_loss": max(losses), "grid": self.grid,
                "losses": [{"rate": rate, "seed": seed, "loss": loss} for (rate, seed), loss in sorted(self.losses.items())]}

    def table(self, best):
        print(f"\n{self.name:14s}" + "".join(f"  seed {seed:<5d}" for seed in self.options.seeds) + "  mean", file=sys.stderr)
        for rate in self.grid:
            cells = [self.losses.get((rate, seed)) for seed in self.options.seeds] + [self.mean(rate)]
            print(f"{rate:<14g}" + "".join(f"  {'-' if cell is None else f'{cell:.4f}':10s}" for cell in cells)
                  + ("  best" if rate == best else ""), file=sys.stderr)


def main():
    options = arguments()
    options.keep.mkdir(parents=True, exist_ok=True)
    result = {"steps": options.steps, "seeds": options.seeds, "demo_args": options.demo_args}
    for name, grid in (("adamw", options.adamw), ("galore_adamw", options.galore)):
        tuned = optimizer(name, grid, options)
        result[name] = tuned.summary()
        tuned.table(result[name]["best_rate"])
        if not result[name]["interior"]:
            print(f"{name}: the best rate is at an end of its grid; widen the grid", file=sys.stderr)
    result["interior"] = min(result[name]["interior"] for name in ("adamw", "galore_adamw"))
    result["loss_ratio"] = result["galore_adamw"]["mean_loss"] / result["adamw"]["mean_loss"]
    text = json.dumps(result, indent=2)
    print(text)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")


main()
