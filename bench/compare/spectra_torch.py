"""Singular values of all linear layers of a model: torch.linalg.svdvals and ours, in turns, on the same fp32 matrices.

Runs the binary of bench/spectrum/model_spectra between torch's passes, each with the same number of threads, and prints
JSON: seconds of each turn, the ratio of the best of both (ours / torch's), and the largest deviation of a value relative
to the largest of its matrix, of ours from an fp64 reference and of torch's from the same. On a machine that others use,
compare processor seconds (cpu_ratio) as well: somebody else's turn on a core is in the seconds of whoever was running.

  spectra_torch.py --binary build/release/bench/spectrum/model_spectra --model FILE.gguf [--threads 1 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import machine_report
import numpy
import safetensors.torch
import torch

KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def matrices(path):
    tensors = safetensors.torch.load_file(path)
    found = []
    block = 0
    while f"blk.{block}.{KINDS[0]}.weight" in tensors:
        found += [tensors[f"blk.{block}.{kind}.weight"].float() for kind in KINDS]
        block += 1
    return found


def theirs(weights):
    start, cpu = time.perf_counter(), time.process_time()
    values = [torch.linalg.svdvals(w) for w in weights]
    return values, time.perf_counter() - start, time.process_time() - cpu


def ours(options, threads, folder):
    values = os.path.join(folder, "values.bin")
    command = [options.binary, "--model", options.model, "--threads", str(threads), "--rounds", "1"]
    command += ["--write", values, *options.ours_args.split()]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return numpy.fromfile(values), report["seconds"], report["cpu_seconds"]


def deviation(values, exact):
    """The largest difference relative to the largest value of the matrix."""
    return max(float((v.double() - e).abs().max() / e[0]) for v, e in zip(values, exact))


def measure(options, weights, exact, threads):
    torch.set_num_threads(threads)
    lengths = [min(w.shape) for w in weights]
    turns = []
    with tempfile.TemporaryDirectory() as folder, machine_report.foreign_cpu() as foreign:
        for _ in range(options.rounds):
            flat, our_seconds, our_cpu = ours(options, threads, folder)
            values, their_seconds, their_cpu = theirs(weights)
            turns.append({"ours": our_seconds, "torch": their_seconds, "ours_cpu": our_cpu, "torch_cpu": their_cpu})
    split = [torch.from_numpy(part.copy()) for part in numpy.split(flat, numpy.cumsum(lengths)[:-1])]

    def best(name):
        return min(turn[name] for turn in turns)

    return {
        "threads": threads,
        "ours_seconds": best("ours"),
        "torch_seconds": best("torch"),
        "ratio": best("ours") / best("torch"),
        "cpu_ratio": best("ours_cpu") / best("torch_cpu"),
        "ours_deviation": deviation(split, exact),
        "torch_deviation": deviation(values, exact),
        "foreign_cpu_share": foreign.share,
        "turns": turns,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours-args", default="", help="more for the binary, e.g. '--accuracy 1e-6'")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "matrices.safetensors")
        command = [options.binary, "--model", options.model, "--rounds", "1", "--write-matrices", file]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        weights = matrices(file)
    torch.set_num_threads(1)
    exact = [torch.linalg.svdvals(w.double()) for w in weights]
    results = []
    for threads in options.threads:
        results.append(measure(options, weights, exact, threads))
        shown = {k: v for k, v in results[-1].items() if k != "turns"}
        print(json.dumps(shown), file=sys.stderr, flush=True)
    print(json.dumps({"torch": torch.__version__, "matrices": len(weights), "results": results}, indent=1))


main()
