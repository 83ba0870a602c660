#!/usr/bin/env python3
"""compile_time.py [--repeat N] [--cuda]: what including the library costs a translation unit.

Compiles bench/compile_time/eigen_core.cpp and bench/compile_time/galore_adamw.cpp in turn, N times each with the same
flags and no compiler cache, and prints the medians in seconds of processor time as JSON (the time on the wall depends on
who else is compiling). "used" is the time of the second as a part of what is allowed: three times the first plus three
seconds.

With --cuda: nvcc on bench/compile_time/galore_adamw.cu for one architecture, in seconds of processor time.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNITS = ["eigen_core", "galore_adamw"]
COMPILER = os.environ.get("CXX", "g++")


def eigen_flags() -> list[str]:
    try:
        result = subprocess.run(["pkg-config", "--cflags-only-I", "eigen3"], capture_output=True, text=True, check=True)
        return result.stdout.replace("-I", "-isystem ").split()
    except (OSError, subprocess.CalledProcessError):
        return ["-isystem", "/usr/include/eigen3"]


def compile_seconds(unit: str, flags: list[str], folder: str) -> float:
    command = [COMPILER, "-std=c++20", "-O2", f"-I{ROOT / 'include'}", *flags, "-c",
               str(ROOT / "bench" / "compile_time" / f"{unit}.cpp"), "-o", f"{folder}/{unit}.o"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "CCACHE_DISABLE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def nvcc_seconds(folder: str) -> float:
    command = ["nvcc", "-std=c++20", "-O2", "--extended-lambda", "--expt-relaxed-constexpr", "-arch=sm_90",
               f"-I{ROOT / 'include'}", "-c", str(ROOT / "bench" / "compile_time" / "galore_adamw.cu"), "-o",
               f"{folder}/galore_adamw.o"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cuda", action="store_true")
    arguments = parser.parse_args()
    repeat = arguments.repeat
    if arguments.cuda:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"galore_adamw_cuda_s": round(statistics.median(nvcc_seconds(folder) for _ in range(repeat)), 2)}))
        return
    flags = eigen_flags()
    seconds: dict[str, list[float]] = {unit: [] for unit in UNITS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            for unit in UNITS:  # in turn, so that a busy machine slows both
                seconds[unit].append(compile_seconds(unit, flags, folder))
    eigen_core, galore_adamw = (statistics.median(seconds[unit]) for unit in UNITS)
    allowed = 3 * eigen_core + 3
    print(json.dumps({
        "eigen_core_s": round(eigen_core, 2),
        "galore_adamw_s": round(galore_adamw, 2),
        "ratio": round(galore_adamw / eigen_core, 3),
        "difference_s": round(galore_adamw - eigen_core, 2),
        "allowed_s": round(allowed, 2),
        "used": round(galore_adamw / allowed, 3),
    }, indent=2))


main()
