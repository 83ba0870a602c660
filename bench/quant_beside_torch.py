#!/usr/bin/env python3
"""Codecs and the 8-bit AdamW, ours beside bitsandbytes, torchao and Q-GaLore's published rounding: A B A, a process each.

Runs build/release/bench/quant/quantize_bench and bench/rule/compare_bench (4096 x 4096), then
bench/compare/quant_torch.py on as many elements, then ours again, and prints as JSON how many times longer they take for
the same work, by the slower of our two turns: {"ratios": {"bnb_adamw_8bit": ..., ...}, "ns_per_element": {...}}.
Needs the release build of the two programs and the environment of bench/compare/setup.sh. Standard library only.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "compare"))

import machine_report  # noqa: E402

SIZE = 4096
PAIRS = {  # theirs: (our program, our benchmark, which of its two times)
    "bnb_quantize": ("quant/quantize_bench", "nearest/dynamic8", "second_ms"),
    "bnb_dequantize": ("quant/quantize_bench", "dequantize/dynamic8", "second_ms"),
    "qgalore_stochastic": ("quant/quantize_bench", "stochastic/int8", "second_ms"),
    "bnb_adamw_8bit": ("rule/compare_bench", "bitsandbytes_pass_and_fp32_pass", "first_ms"),
    "torchao_adamw_8bit": ("rule/compare_bench", "bitsandbytes_pass_and_fp32_pass", "first_ms"),
}


def arguments():
    venv = pathlib.Path(os.environ.get("LOWRANK_COMPARE_VENV", ROOT / "build" / "compare-venv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--build", default=str(ROOT / "build/release/bench"), metavar="FOLDER")
    parser.add_argument("--python", default=str(venv / "bin/python"))
    return parser.parse_args()


def ours(options):
    """Nanoseconds an element of each of our benchmarks."""
    out = {}
    for program, name, time in sorted(set(PAIRS.values())):
        exact = f"^{name}/size:{SIZE}/threads:{options.threads}/"
        command = [f"{options.build}/{program}", f"--benchmark_filter={exact}", "--benchmark_format=json"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout or "{}").get("benchmarks", [])
        if len(found) != 1 or found[0].get("error_occurred"):
            raise SystemExit(f"{' '.join(command)}: {len(found)} benchmarks ran, expected one that succeeds")
        out[program, name, time] = 1e6 * found[0][time] / SIZE**2
    return out


def main():
    options = arguments()
    with machine_report.foreign_cpu(own=resource.RUSAGE_CHILDREN) as foreign:
        first = ours(options)
        command = [options.python, str(ROOT / "bench/compare/quant_torch.py"), "--elements", str(SIZE**2)]
        command += ["--threads", str(options.threads)]
        theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["methods"]
        second = ours(options)
    slower = {key: max(first[key], second[key]) for key in first}
    pairs = {name: pair for name, pair in PAIRS.items() if name in theirs}
    json.dump(
        {
            "foreign_cpu_share": foreign.share,
            "ratios": {name: theirs[name]["ns_per_element"] / slower[pair] for name, pair in pairs.items()},
            "ns_per_element": {
                name: {"theirs": theirs[name]["ns_per_element"], "ours": slower[pair]} for name, pair in pairs.items()
            },
        },
        sys.stdout,
        indent=1,
    )
    print()


main()
