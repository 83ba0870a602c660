#!/usr/bin/env python3
"""What fresher bases buy in the demo: the same training with different finders, gaps and transports, one after the other.

A row is FINDER-REFRESH[GAP][-TRANSPORT][-same-bytes], as in svd-every200 or tracked-every10-rotate; the transport is keep
unless named. A finder may remember more than the basis (tracked: r x r numbers a matrix): with -same-bytes the row gets the
largest rank whose optimizer takes no more bytes than plain GaLore at --rank. adamw is a row, too.
Prints a table, and as JSON on standard output {"rows": [{"id": .., "loss_mean": .., ..}]}: losses over the seeds, all else
as a mean of them. Reports of single runs stay in --keep and are not run again by the same program. Standard library only.
"""

import argparse
import json
import pathlib
import re
import shlex
import statistics
import sys

import demo_runs

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEMO = f"{ROOT}/build/release/examples/llama/llama_demo --text {ROOT}/build/data/shakespeare.txt"
TRACKED = [f"tracked-every{gap}{transport}" for gap in (10, 1) for transport in ("", "-rotate")]
ROWS = ["svd-every200", "randomized-every50", "warm-every10", "warm-every10-rotate",
        *TRACKED, *(f"{row}-same-bytes" for row in TRACKED)]
ROW = re.compile(r"(?P<finder>[a-z]+)-(?P<refresh>[a-z]+)(?P<gap>\d*)(-(?P<transport>keep|reset|rotate))?(?P<bytes>-same-bytes)?")


class row:
    def __init__(self, name, options):
        self.name, self.options = name, options
        self.rank = options.rank
        self.settings = ["--optimizer", "adamw"]
        self.finder = None
        self.same_bytes = False
        if name == "adamw":
            return
        what = ROW.fullmatch(name)
        self.finder = what["finder"]
        self.settings = ["--optimizer", "galore_adamw", "--finder", self.finder, "--refresh", what["refresh"],
                         "--transport", what["transport"] or "keep", *(["--gap", what["gap"]] if what["gap"] else [])]
        self.same_bytes = what["bytes"] is not None

    def report(self, rank, seed, steps):
        """The run with these settings in the demo's own report."""
        options = self.options
        settings = [*self.settings, "--rank", str(rank), "--seed", str(seed), "--steps", str(steps)]
        settings += ["--sample", "0", "--html", "", "--checkpoint-every", "0", *options.demo_args]
        return demo_runs.kept_report(options.keep, f"{self.name}-{rank}-{seed}-{steps}", options.demo, settings, options.program)

    def bytes_at(self, rank):
        return self.report(rank, self.options.seeds[0], 1)["optimizer_bytes"]

    def fit_rank(self):
        """The largest rank that takes no more bytes than a finder without a memory does at the rank asked for."""
        asked = self.options.rank
        allowed = row("randomized-every50", self.options).bytes_at(asked)
        probe = row(f"{self.finder}-every50", self.options)  # neither gap nor transport change the bytes
        fits, fails = 1, asked + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if probe.bytes_at(middle) <= allowed:
                fits = middle
            else:
                fails = middle
        self.rank = fits
        print(f"{self.name}: rank {fits} takes {probe.bytes_at(fits)} bytes, plain GaLore at rank {asked} {allowed}, "
              f"{self.finder} at rank {asked} {probe.bytes_at(asked)}", file=sys.stderr, flush=True)

    def measure(self):
        options = self.options
        if self.same_bytes:
            self.fit_rank()
        runs, losses = [], []
        for seed in options.seeds:
            runs.append(self.report(self.rank, seed, options.steps))
            loss = runs[-1]["validation_loss"]
            losses.append(float("inf") if loss is None else loss)  # a run that diverged
            print(f"{self.name:34s} rank {self.rank:<4d} seed {seed}  validation loss {losses[-1]:.4f}", file=sys.stderr,
                  flush=True)
        means = ("optimizer_share", "refreshes", "refresh_seconds", "training_seconds", "tokens_per_second")
        return {"id": self.name, "rank": self.rank, "loss_mean": statistics.mean(losses), "loss_min": min(losses),
                "loss_max": max(losses), "losses": losses, **{name: statistics.mean(run[name] for run in runs) for name in means},
                "optimizer_bytes": runs[0]["optimizer_bytes"]}


def rows(text):
    names = text.split(",")
    for name in names:
        if name != "adamw" and not ROW.fullmatch(name):
            raise argparse.ArgumentTypeError(f"{name!r} is not a row like tracked-every10-rotate")
    return names


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=rows, default=ROWS, metavar="ROW,ROW,..", help=f"default: {','.join(ROWS)}")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--steps", type=int, default=400)
    add("--rank", type=int, default=64)
    add("--demo", type=shlex.split, default=shlex.split(DEMO), metavar="'...'", help="the program, with its text")
    add("--demo-args", type=shlex.split, default=[], metavar="'...'", help="further arguments, the same for every run")
    add("--keep", type=pathlib.Path, default=ROOT / "build/refresh", metavar="FOLDER")
    add("--report", type=pathlib.Path, metavar="FILE.json", help="write the JSON there too")
    options = parser.parse_args()
    options.program = demo_runs.build_mark(options.demo[0])
    return options


def table(measured):
    print(f"\n{'':34s}rank  loss (smallest .. largest)   optimizer's share   bases   seconds   MiB", file=sys.stderr)
    for one in measured:
        losses = f"{one['loss_mean']:.4f} ({one['loss_min']:.4f} .. {one['loss_max']:.4f})"
        print(f"{one['id']:34s}{one['rank']:4d}  {losses:27s}  {100 * one['optimizer_share']:15.1f} %  "
              f"{one['refreshes']:6.0f}  {one['refresh_seconds']:8.2f}  {one['optimizer_bytes'] / 2**20:5.2f}", file=sys.stderr)


def main():
    options = arguments()
    options.keep.mkdir(parents=True, exist_ok=True)
    measured = [row(name, options).measure() for name in options.rows]
    table(measured)
    text = json.dumps({"steps": options.steps, "seeds": options.seeds, "demo_args": options.demo_args, "rows": measured},
                      indent=2)
    print(text)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")


main()
