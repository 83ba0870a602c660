"""Time PyTorch's ways to a basis of one gradient: torch.linalg.svd (what galore_torch calls) and torch.svd_lowrank.

The gradient is a file of row-major fp32 numbers, as bench/basis/refresh_speed --write leaves it, so that both programs
see the same one. Prints JSON: milliseconds (best of the rounds) and the energy that the left basis captures.
"""

import argparse
import json
import time

import numpy
import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gradient")
    parser.add_argument("--shape", required=True, metavar="ROWSxCOLUMNSxRANK")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--svd-rounds", type=int, default=1, help="of the exact SVD; 0 leaves it out")
    options = parser.parse_args()
    rows, columns, rank = map(int, options.shape.split("x"))
    torch.set_num_threads(options.threads)
    g = torch.from_numpy(numpy.fromfile(options.gradient, dtype=numpy.float32).reshape(rows, columns))

    def exact():
        return torch.linalg.svd(g, full_matrices=False)[0][:, :rank]

    def lowrank():
        return torch.svd_lowrank(g, q=rank, niter=2)[0]

    result = {"shape": options.shape, "threads": options.threads, "torch": torch.__version__, "methods": {}}
    for name, call, rounds in (("svd_lowrank", lowrank, options.rounds), ("svd", exact, options.svd_rounds)):
        if rounds == 0:
            continue
        if rounds > 1:
            call()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            basis = call()
            times.append(1e3 * (time.perf_counter() - start))
        energy = float((basis.T.double() @ g.double()).square().sum())
        result["methods"][name] = {"ms": min(times), "samples": len(times), "energy": energy}
    print(json.dumps(result))


main()
