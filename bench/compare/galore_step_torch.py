"""Time one optimizer step of one layer: torch's AdamW (fused, foreach) and galore_torch's GaLoreAdamW.

GaLoreAdamW is timed without a refresh of its basis (after a first step that makes it) and with one (its SVD). The
methods take turns in one process, with a copy of the layer and a square product in between, so that each number has
the bandwidth and the product rate of the same minutes beside it. Gradients are fixed; small layers stay in the
caches.
"""

import argparse
import statistics
import time

import torch

import galore_package
import machine_report

SHAPES = ((256, 256, 64), (256, 688, 64), (512, 1376, 128), (2048, 2048, 512))
SLOW_REFRESH_ELEMENTS = 2 * 1000 * 1000
NEVER = 1 << 40


def layer(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(0.02 * torch.randn(rows, columns, generator=generator))
    weight.grad = torch.randn(rows, columns, generator=generator)
    return weight


def adamw_step(rows, columns, **how):
    return torch.optim.AdamW([layer(rows, columns, 1)], lr=1e-6, weight_decay=0.0, **how).step


def galore_step(rows, columns, rank, gap):
    group = {
        "params": [layer(rows, columns, 1)],
        "rank": rank,
        "update_proj_gap": gap,
        "scale": 0.25,
        "proj_type": "std",
    }
    return galore_package.load()([group], lr=1e-6, no_deprecation_warning=True).step


def copy_of_layer(rows, columns):
    source, destination = torch.randn(rows, columns), torch.empty(rows, columns)
    return lambda: destination.copy_(source)


def square_product(size):
    a, b, c = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    return lambda: torch.mm(a, b, out=c)


def seconds_per_call(call, at_least):
    """Mean over as many calls as fill `at_least` seconds: one call of a small layer is too short for the clock."""
    calls, start = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / calls


def measure(methods, rounds, options):
    """The methods take turns. Samples are dropped for measured foreign CPU only, never for their time."""
    kept, dropped = {name: [] for name in methods}, {name: [] for name in methods}
    for call in methods.values():
        call()
        call()
    for _ in range(3 * rounds):
        for name, call in methods.items():
            if len(kept[name]) < rounds:
                with machine_report.foreign_cpu() as foreign:
                    seconds = seconds_per_call(call, options.sample_seconds)
                (kept if foreign.share <= options.max_foreign else dropped)[name].append(seconds)
    return kept, dropped


def measure_shape(rows, columns, rank, options):
    elements = rows * columns
    square = 2048 if elements >= SLOW_REFRESH_ELEMENTS else 512
    methods = {
        "adamw_fused": adamw_step(rows, columns, fused=True),
        "adamw_foreach": adamw_step(rows, columns, foreach=True),
        "galore": galore_step(rows, columns, rank, NEVER),
        "copy": copy_of_layer(rows, columns),
        "square_product": square_product(square),
    }
    kept, dropped = measure(methods, options.rounds, options)
    if elements < SLOW_REFRESH_ELEMENTS or options.slow:
        slow_kept, slow_dropped = measure(
            {"galore_refresh": galore_step(rows, columns, rank, 1)}, options.refresh_rounds, options
        )
        kept |= slow_kept
        dropped |= slow_dropped
    results = {}
    for name in kept:
        values = kept[name] or dropped[name]
        seconds = statistics.median(values)
        result = {
            "ms": 1e3 * seconds,
            "ms_smallest": 1e3 * min(values),
            "ms_largest": 1e3 * max(values),
            "samples": len(kept[name]),
            "samples_dropped": len(dropped[name]),
            "disturbed": not kept[name],
        }
        if name == "copy":
            result["gigabytes_per_second"] = 2 * 4 * elements / seconds / 1e9
        elif name == "square_product":
            result |= {"size": square, "gflops": 2 * square**3 / seconds / 1e9}
        else:
            result["ns_per_parameter"] = 1e9 * seconds / elements
        if name == "galore":
            result["gflops"] = 4 * rows * columns * rank / seconds / 1e9
        results[name] = result
    if "galore_refresh" in results:
        results["galore_refresh"]["svd_ms"] = results["galore_refresh"]["ms"] - results["galore"]["ms"]
    return {"rows": rows, "columns": columns, "rank": rank, "results": results}


def shape(text):
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLUMNSxRANK")
    return tuple(int(part) for part in parts)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--shape",
        type=shape,
        action="append",
        metavar="ROWSxCOLUMNSxRANK",
        help="instead of the default shapes; repeatable",
    )
    add("--slow", action="store_true", help="refresh also at large shapes (seconds a sample)")
    add("--rounds", type=int, default=7)
    add("--refresh-rounds", type=int, default=3)
    add("--sample-seconds", type=float, default=0.2, help="least length of one sample")
    add(
        "--max-foreign",
        type=float,
        default=0.05,
        help="share of the CPU taken by others above which a sample is dropped",
    )
    add("--threads", type=int, default=2)
    add("--report", metavar="FILE.json")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    shapes = []
    for rows, columns, rank in options.shape or SHAPES:
        shapes.append(measure_shape(rows, columns, rank, options))
        print(f"{rows} x {columns}, rank {rank}")
        for name, result in shapes[-1]["results"].items():
            rates = "  ".join(
                f"{result[key]:.3g} {unit}"
                for key, unit in (
                    ("ns_per_parameter", "ns/parameter"),
                    ("gflops", "GFLOP/s"),
                    ("gigabytes_per_second", "GB/s"),
                )
                if key in result
            )
            print(
                f"  {name:15s} {result['ms']:9.3f} ms "
                f"[{result['ms_smallest']:.3f}..{result['ms_largest']:.3f}]  {rates}  "
                f"({result['samples']} samples, {result['samples_dropped']} dropped)"
                f"{'  DISTURBED: no number' if result['disturbed'] else ''}",
                flush=True,
            )
    if options.report:
        machine_report.write(
            {
                "tool": "galore_step_torch",
                "date": machine_report.now(),
                "machine": machine_report.machine(),
                "versions": machine_report.versions("torch", "galore-torch"),
                "settings": {
                    "threads": options.threads,
                    "rounds": options.rounds,
                    "refresh_rounds": options.refresh_rounds,
                    "sample_seconds": options.sample_seconds,
                    "max_foreign": options.max_foreign,
                },
                "shapes": shapes,
            },
            options.report,
        )


if __name__ == "__main__":
    main()
