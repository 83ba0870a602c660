"""Time the low-bit codecs and optimizers of bitsandbytes and torchao on the host, beside torch's fused AdamW.

bitsandbytes: quantize_blockwise and dequantize_blockwise (dynamic map, blocks of 256), AdamW8bit. torchao: AdamW8bit,
which compiles its step; where no compiler is found it is left out. Q-GaLore's stochastic rounding to int8 is measured as
its published code does it: a few torch operations on the whole tensor. Everything takes turns in one process with a copy
of the same tensor. JSON on standard output: nanoseconds an element, and times of fused AdamW or of the copy.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

import torch

import machine_report

warnings.filterwarnings("ignore")


def tensor(count, seed):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def parameter(count):
    weight = torch.nn.Parameter(0.02 * tensor(count, 1).view(-1, 1024))
    weight.grad = tensor(count, 2).view(-1, 1024)
    return weight


def round_stochastically(weight, group):
    """What q-galore-torch 1.0 computes for an int8 weight: scale and zero of each group, floor, a random carry, a clamp."""
    rows = weight.reshape(-1, group)
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    scales = (high - low).clamp(min=1e-5) / 255
    zeros = (-torch.round(low / scales)).clamp_(0, 255)
    scaled = rows / scales
    below = torch.floor(scaled)
    carry = torch.rand_like(scaled) < scaled - below
    return torch.clamp(below + carry + zeros, 0, 255).to(torch.uint8)


def methods(count):
    from bitsandbytes import functional, optim

    x = tensor(count, 3)
    codes, state = functional.quantize_blockwise(x, blocksize=256)
    to = torch.empty_like(x)
    out = {
        "copy": lambda: to.copy_(x),
        "adamw_fused": torch.optim.AdamW([parameter(count)], lr=1e-6, fused=True).step,
        "bnb_quantize": lambda: functional.quantize_blockwise(x, blocksize=256),
        "bnb_dequantize": lambda: functional.dequantize_blockwise(codes, state),
        "qgalore_stochastic": lambda: round_stochastically(x, 256),
    }
    for name, make in (("bnb_adamw_8bit", lambda p: optim.AdamW8bit([p], lr=1e-6)), ("torchao_adamw_8bit", torchao_adamw)):
        try:
            step = make(parameter(count)).step
            step()
            out[name] = step
        except Exception as reason:  # no compiler, no host kernel: said, and left out
            print(f"{name} left out: {str(reason).splitlines()[0]}", file=sys.stderr)
    return out


def torchao_adamw(weight):
    from torchao.optim import AdamW8bit

    return AdamW8bit([weight], lr=1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    seconds = {}
    with torch.no_grad():
        all_methods = methods(options.elements)
        for _ in range(options.rounds):
            for name, call in all_methods.items():
                start = time.perf_counter()
                call()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    best = {name: statistics.quantiles(times, n=4)[0] if len(times) > 1 else times[0] for name, times in seconds.items()}
    report = {
        name: {
            "ns_per_element": 1e9 * time / options.elements,
            "times_of_copy": time / best["copy"],
            "times_of_adamw": time / best["adamw_fused"],
        }
        for name, time in best.items()
    }
    json.dump({"elements": options.elements, "threads": torch.get_num_threads(), "machine": machine_report.machine(),
               "methods": report}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
