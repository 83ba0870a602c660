"""Run this project's llama_demo and llama_torch.py in turns (A B A B ...) on the same text, and compare their speed.

Standard library only. A pair in which others took more than --max-foreign of the CPU is repeated, and does not count;
nothing is ever dropped for being slow or fast. Exits with 1 if an optimizer was left without any undisturbed pair.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile

import machine_report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def read_run(report_path, optimizer):
    """The one place that knows the reports: both tools write runs[], with the same names for the figures compared."""
    with open(report_path, encoding="utf-8") as text:
        report = json.load(text)
    runs = [run for run in report["runs"] if run.get("optimizer", optimizer) == optimizer] or report["runs"]
    if len(runs) != 1:
        raise SystemExit(f"{report_path}: {len(runs)} runs could be the one with {optimizer}; expected one")
    run = runs[0]
    figures = {name: float(run[name]) for name in ("tokens_per_second", "validation_loss", "optimizer_share")}
    names = {"parameters": "parameters", "peak_rss": "peak_resident_bytes", "optimizer_bytes": "optimizer_state_bytes"}
    further = ("peak_resident_bytes", "optimizer_state_bytes", "optimizer_state_bytes_held", "setup")
    names |= {name: name for name in (*further, "forward_backward_ms", "compile_failed")}
    return figures | {name: run[reported] for reported, name in names.items() if reported in run}


def quiet_environment():
    """Both tools run with the speed they have when nobody has tuned or hobbled a BLAS through the environment."""
    return {name: value for name, value in os.environ.items() if name not in machine_report.SPEED_VARIABLES}


def run_tool(command, optimizer, folder):
    report_path = folder / "run.json"
    report_path.unlink(missing_ok=True)
    with machine_report.foreign_cpu(own=resource.RUSAGE_CHILDREN) as foreign:
        finished = subprocess.run(
            [*command, "--optimizer", optimizer, "--report", str(report_path)],
            env=quiet_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if finished.returncode != 0 or not report_path.exists():
        raise SystemExit(
            f"{shlex.join(finished.args)}\nended with {finished.returncode} "
            f"({'a' if report_path.exists() else 'no'} report). Its last lines:\n{finished.stdout[-2000:]}"
        )
    return read_run(report_path, optimizer) | {"foreign_cpu_share": foreign.share, "stolen_cpu_share": foreign.stolen}


def compare(ours, theirs, optimizer, options, folder):
    pairs = []
    while (
        sum(pair["kept"] for pair in pairs) < options.repeats and len(pairs) < options.repeats + options.extra_repeats
    ):
        pair = {"ours": run_tool(ours, optimizer, folder), "torch": run_tool(theirs, optimizer, folder)}
        pair["kept"] = max(pair[side]["foreign_cpu_share"] for side in ("ours", "torch")) <= options.max_foreign
        pair["ratio"] = pair["ours"]["tokens_per_second"] / pair["torch"]["tokens_per_second"]
        pairs.append(pair)
        print(
            f"{optimizer:7s} ours {pair['ours']['tokens_per_second']:7.0f}  "
            f"torch {pair['torch']['tokens_per_second']:7.0f} tokens/s"
            f"  ratio {pair['ratio']:.3f}{'' if pair['kept'] else '  (disturbed: not counted)'}",
            flush=True,
        )
    kept = [pair for pair in pairs if pair["kept"]]
    counted = kept or pairs
    result = {
        "optimizer": optimizer,
        "pairs_kept": len(kept),
        "disturbed": len(kept) < options.repeats,
        "pairs": pairs,
        "ratio_tokens_per_second": statistics.median(pair["ratio"] for pair in counted),
        "ratio_smallest": min(pair["ratio"] for pair in counted),
        "ratio_largest": max(pair["ratio"] for pair in counted),
    }
    for side in ("ours", "torch"):
        result[side] = {
            name: statistics.median(pair[side][name] for pair in counted)
            for name in ("tokens_per_second", "validation_loss", "optimizer_share")
        }
    sizes = {side: pairs[0][side].get("parameters") for side in ("ours", "torch")}
    if None not in sizes.values() and sizes["ours"] != sizes["torch"]:
        raise SystemExit(f"not the same model: ours has {sizes['ours']} parameters, torch's {sizes['torch']}")
    return result


def arguments():
    venv = pathlib.Path(os.environ.get("LOWRANK_COMPARE_VENV", ROOT / "build" / "compare-venv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", required=True, metavar="FILE")
    add("--ours", default=str(ROOT / "build/release/examples/llama/llama_demo"), metavar="BINARY")
    add("--python", default=str(venv / "bin/python"), help="the Python of the venv that setup.sh made")
    add("--optimizer", nargs="+", choices=("adamw", "galore"), default=["adamw", "galore"])
    add("--steps", type=int, default=120)
    add("--repeats", type=int, default=3, help="undisturbed pairs wanted")
    add("--extra-repeats", type=int, default=2, help="most further pairs, in place of disturbed ones")
    add("--threads", type=int, default=2)
    add(
        "--max-foreign",
        type=float,
        default=0.05,
        help="share of the CPU taken by others above which a pair does not count",
    )
    add("--ours-args", type=shlex.split, default=[], metavar="'...'", help="further arguments of our binary")
    add("--torch-args", type=shlex.split, default=[], metavar="'...'", help="further arguments of llama_torch.py")
    add("--report", metavar="FILE.json")
    options = parser.parse_args()
    if not os.access(options.ours, os.X_OK):
        parser.error(f"--ours {options.ours}: no such program; build the release preset first")
    if not os.access(options.python, os.X_OK):
        parser.error(f"--python {options.python}: no such program; run bench/compare/setup.sh first")
    if not os.path.isfile(options.text):
        parser.error(f"--text {options.text}: no such file")
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats} must be at least 1")
    return options


def main():
    options = arguments()
    same = ["--text", os.path.abspath(options.text), "--threads", str(options.threads)]
    ours = [options.ours, *same, "--steps", str(options.steps), *options.ours_args]
    torch_script = [options.python, str(HERE / "llama_torch.py"), *same, "--log-every", "0"]
    calibration = None
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if "--setup" not in options.torch_args:
            calibration = run_tool(
                [*torch_script, "--steps", "6", "--setup", "fastest", *options.torch_args], "adamw", folder
            )
            torch_script += ["--setup", calibration["setup"]]
            print(
                f"torch set-up: {calibration['setup']}, "
                f"forward and backward {calibration.get('forward_backward_ms')} ms",
                flush=True,
            )
        theirs = [*torch_script, "--steps", str(options.steps), *options.torch_args]
        results = [compare(ours, theirs, optimizer, options, folder) for optimizer in options.optimizer]
    for result in results:
        print(
            f"{result['optimizer']}: ours / torch = {result['ratio_tokens_per_second']:.3f} "
            f"[{result['ratio_smallest']:.3f}..{result['ratio_largest']:.3f}] "
            f"over {result['pairs_kept']} undisturbed pairs; "
            f"validation loss {result['ours']['validation_loss']:.3f} / {result['torch']['validation_loss']:.3f}; "
            f"optimizer share "
            f"{100 * result['ours']['optimizer_share']:.1f} % / {100 * result['torch']['optimizer_share']:.1f} %"
        )
    if options.report:
        machine_report.write(
            {
                "tool": "side_by_side",
                "date": machine_report.now(),
                "machine": machine_report.machine(),
                "speed_variables_removed": machine_report.speed_variables_set(),
                "steps": options.steps,
                "threads": options.threads,
                "text": os.path.basename(options.text),
                "ours_args": options.ours_args,
                "torch_args": options.torch_args,
                "torch_calibration": calibration,
                "results": results,
            },
            options.report,
        )
    return 0 if all(result["pairs_kept"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
