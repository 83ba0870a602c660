"""A real model compressed by WeLore: the SVDs that the reference takes, and our whole pass, in turns.

The reference (VITA-Group/WeLore) computes the full SVD of every linear layer to look at its singular values, and once
more of each layer it factors. Here torch.linalg.svd takes both, of the same fp32 matrices and with the same number of
threads; everything else the reference does is left out. Prints JSON: seconds of each turn, and the ratio of the best
of both (ours / torch's).

  compress_torch.py --binary build/release/bench/compress/whole_pass --model FILE.gguf [--threads 2] [--rounds 2]
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

import machine_report
import safetensors.torch
import torch


def ours(options, more=()):
    command = [options.binary, "--model", options.model, "--threads", str(options.threads), "--rounds", "1", *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def theirs(weights):
    start = time.perf_counter()
    for w in weights:
        torch.linalg.svd(w, full_matrices=False)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "linear.safetensors")
        report = ours(options, ("--write", file))
        weights = list(safetensors.torch.load_file(file).values())
        for _ in range(options.rounds):
            turns.append({"ours": ours(options)["seconds"], "torch_once": theirs(weights)})
    best_ours = min(turn["ours"] for turn in turns)
    best_theirs = 2 * min(turn["torch_once"] for turn in turns)
    print(json.dumps({"machine": machine_report.machine(),
                      "threads": options.threads, "matrices": report["matrices"], "low_rank": report["low_rank"],
                      "turns": turns, "ours_s": best_ours, "torch_twice_s": best_theirs,
                      "ratio": best_ours / best_theirs}))


if __name__ == "__main__":
    main()
