#!/usr/bin/env python3
"""What ptxas makes of the shipped kernels, held against rules and a recorded table.

  gates.py             compiles *.cu beside this file for every architecture; fails where a kernel breaks a rule or its ceiling
  gates.py --record    the same rules, and writes the table anew: on purpose only
  gates.py --roofline  bytes and instructions per parameter against what a device can do, from the table

Rules, without exception: no spills, no stack, no local memory; tiles of contiguous numbers are read and written 16 bytes a lane
at a time. Ceilings, from the table: registers, instructions of the kernel, instructions of a turn of its main loop.
tile_kernels.cu has rules, codecs and weights, preset_kernels.cu whole steps with everything that these launch. Left out: kernels
that repeat those for other types (named policies of by_name, masters of fp16, factored gradients), and what no preset calls
(exact SVD, Householder, Krylov and Gram routes), which is cuSOLVER's or cuBLAS's work but for passes over elements.
Needs nvcc, c++filt, and cuobjdump with nvdisasm: those of the toolkit, or else of PyPI, which pip puts into build/gates.
"""
import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import roofline  # noqa: E402
import sass  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TABLE = HERE / "table.csv"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
DISASSEMBLER = ("nvidia-cuda-cuobjdump==13.5.37", "nvidia-cuda-nvdisasm==13.5.37")
FLAGS = "-std=c++20 --extended-lambda --expt-relaxed-constexpr -diag-suppress 20012 -DNVTX_DISABLE -cubin -Xptxas -v".split()
COLUMNS = ("kernel", "architecture", "registers", "instructions", "turn", "wide_loads", "wide_stores")
CEILINGS = ("registers", "instructions", "turn")
FLOORS = ("wide_loads", "wide_stores")


class Failure(Exception):
    """The gates cannot be looked at; says why."""


@dataclass
class Measured:
    """A kernel of one architecture: its row of the table, and what must be zero."""

    row: dict[str, str | int]
    stack: int
    spills: int
    local: int


def run(command: list[str], **more) -> subprocess.CompletedProcess:
    try:
        done = subprocess.run(command, text=True, capture_output=True, **more)
    except FileNotFoundError as error:
        raise Failure(f"cannot run {command[0]}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin"))
    if not found:
        raise Failure("there is no nvcc: install the CUDA toolkit")
    return found


def disassembler() -> tuple[str, str]:
    """cuobjdump, and the folder of nvdisasm, which it calls."""
    tools = ROOT / "build" / "gates" / "tools"

    def search() -> tuple[str, str] | None:
        folders = [os.path.dirname(nvcc()), *map(str, tools.glob("nvidia/*/bin")), os.environ.get("PATH", "")]
        found = [shutil.which(name, path=os.pathsep.join(folders)) for name in ("cuobjdump", "nvdisasm")]
        return (found[0], os.path.dirname(found[1])) if all(found) else None

    if found := search():
        return found
    print(f"fetching {' and '.join(DISASSEMBLER)}", file=sys.stderr)
    pips = [python for python in (sys.executable, "/usr/bin/python3")
            if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0]
    if not pips:
        raise Failure("no cuobjdump and nvdisasm, and no pip to fetch them: install python3-pip")
    run([pips[0], "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade",
         "--target", str(tools), *DISASSEMBLER])
    if found := search():
        return found
    raise Failure(f"{' and '.join(DISASSEMBLER)} brought no cuobjdump and nvdisasm")


RESOURCES = re.compile(
    r"Function properties for (?P<name>\S+)\n"
    r"\s+(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r"ptxas info\s+: Used (?P<registers>\d+) registers"
)


def measure(source: Path, architecture: str) -> list[Measured]:
    folder = ROOT / "build" / "gates"
    folder.mkdir(parents=True, exist_ok=True)
    cubin = folder / f"{source.stem}.{architecture}.cubin"
    log = run([nvcc(), *FLAGS, f"-arch={architecture}", f"-I{ROOT / 'include'}", str(source), "-o", str(cubin)]).stderr
    cuobjdump, path = disassembler()
    listing = run(
        [cuobjdump, "-sass", str(cubin)], env={**os.environ, "PATH": os.pathsep.join((path, os.environ.get("PATH", "")))}
    ).stdout
    kernels = sass.kernels(listing)
    names = run(["c++filt"], input="\n".join(kernels)).stdout.splitlines()
    resources = {match["name"]: match for match in RESOURCES.finditer(log)}
    out: dict[str, Measured] = {}
    for (mangled, kernel), demangled in zip(kernels.items(), names, strict=True):
        if mangled not in resources:
            raise Failure(f"ptxas has said nothing about {demangled}")
        used = resources[mangled]
        row = {
            "kernel": sass.short_name(demangled),
            "architecture": architecture,
            "registers": int(used["registers"]),
            "instructions": len(kernel.instructions),
            "turn": kernel.turn,
            "wide_loads": kernel.accesses("load", 16) + kernel.accesses("load", 32),
            "wide_stores": kernel.accesses("store", 16) + kernel.accesses("store", 32),
        }
        one = Measured(row, int(used["stack"]), int(used["stores"]) + int(used["loads"]), kernel.local_accesses)
        # Instantiations for constant operands and for others are the same code.
        if out.setdefault(row["kernel"], one) != one:
            raise Failure(f"{source.name} has several kernels that the table would call {row['kernel']}")
    return list(out.values())


def measure_all() -> list[Measured]:
    disassembler()  # once, before several ask for it
    work = [(source, architecture) for source in sorted(HERE.glob("*.cu")) for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(int(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", os.cpu_count() or 1))) as pool:
        parts = pool.map(lambda one: measure(*one), work)
        found = {(one.row["kernel"], one.row["architecture"]): one for part in parts for one in part}
    return [found[key] for key in sorted(found)]


def must_be_wide(kernel: str) -> list[str]:
    """Which of its accesses a kernel over tiles of contiguous numbers makes 16 bytes a lane at a time."""
    if not kernel.startswith(("run_tiles<", "run_line_tiles<")):
        return []
    items = int(re.search(r"<(\d+)", kernel)[1]) // 32
    if items < 4:
        return []
    if "dequantize<" in kernel:
        return ["wide_stores"]
    if "quantize<" in kernel or "quantize_stochastic<" in kernel:
        return ["wide_loads"]
    if items < 8 and "bf16_tiles" in kernel:  # four of them are 8 bytes
        return [] if ", bf16, bf16_tiles" in kernel else ["wide_loads"]
    return list(FLOORS)


def broken_rules(one: Measured) -> list[str]:
    out = []
    if one.stack:
        out.append(f"{one.stack} bytes of stack")
    if one.spills:
        out.append(f"{one.spills} bytes of spills")
    if one.local:
        out.append(f"{one.local} accesses of local memory")
    out += [f"no 16-byte {what.removeprefix('wide_')}" for what in must_be_wide(one.row["kernel"]) if not one.row[what]]
    return out


def release() -> str:
    return re.search(r"release (\S+),", run([nvcc(), "--version"]).stdout)[1]


def read_table() -> tuple[str, dict[tuple[str, str], dict[str, str]]]:
    """Release of nvcc that it was recorded with, and its rows."""
    if not TABLE.exists():
        raise Failure(f"there is no {TABLE.relative_to(ROOT)}: gates.py --record writes it")
    with TABLE.open(newline="") as file:
        by = file.readline().removeprefix("# nvcc ").strip()
        return by, {(row["kernel"], row["architecture"]): row for row in csv.DictReader(file)}


def write_table(measured: list[Measured]) -> None:
    with TABLE.open("w", newline="") as file:
        file.write(f"# nvcc {release()}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(one.row for one in measured)


def against_table(measured: list[Measured], table: dict[tuple[str, str], dict[str, str]]) -> tuple[list[str], int]:
    """What is worse than recorded, and how many kernels are better."""
    worse, better = [], 0
    for one in measured:
        title = f"{one.row['kernel']} on {one.row['architecture']}"
        known = table.pop((one.row["kernel"], one.row["architecture"]), None)
        if known is None:
            worse.append(f"{title}: not in the table")
            continue
        for what in (*CEILINGS, *FLOORS):
            now, then = int(one.row[what]), int(known[what])
            if now > then if what in CEILINGS else now < then:
                worse.append(f"{title}: {now} {what.replace('_', ' ')}, recorded {then}")
        better += any(int(one.row[what]) < int(known[what]) for what in CEILINGS)
    worse += [f"{kernel} on {architecture}: in the table, but gone" for kernel, architecture in table]
    return worse, better


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the table anew")
    parser.add_argument("--roofline", action="store_true", help="print bytes and instructions per parameter")
    options = parser.parse_args()
    if options.roofline:
        print(roofline.report(read_table()[1], "sm_90"))
        return 0
    measured = measure_all()
    failed = [
        f"{one.row['kernel']} on {one.row['architecture']}: {', '.join(broken)}"
        for one in measured
        if (broken := broken_rules(one))
    ]
    note = ""
    if options.record:
        write_table(measured)
    else:
        by, table = read_table()
        worse, better = against_table(measured, table)
        failed += worse
        if worse and by != release():
            note = f"The table was recorded with nvcc {by}, this is {release()}.\n"
        if better:
            note += f"{better} kernels take less than recorded; gates.py --record lowers their ceilings.\n"
    print(*failed, sep="\n", end="\n" if failed else "")
    print(f"{note}{len({one.row['kernel'] for one in measured})} kernels on {len(ARCHITECTURES)} architectures, {len(failed)} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"gates: {failure}")
