"""What every report here says about the machine, the software and the quiet of the run (standard library only)."""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import time

# Settings that change the speed of a BLAS or of an OpenMP runtime behind the caller's back.
SPEED_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_CBWR",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "GOMP_CPU_AFFINITY",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
)


def speed_variables_set():
    return {name: os.environ[name] for name in SPEED_VARIABLES if name in os.environ}


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def machine():
    with open("/proc/meminfo", encoding="utf-8") as lines:
        memory_kib = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_kib * 1024,
        "kernel": platform.release(),
        "speed_variables": speed_variables_set(),
    }


def versions(*packages):
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def peak_resident_bytes():
    # VmHWM and not ru_maxrss: the latter keeps the peak of the process that started this one.
    with open("/proc/self/status", encoding="utf-8") as lines:
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


class foreign_cpu:
    """Share of the machine's CPU time that went to others (other processes and the hypervisor) inside a `with` block.

    `share` is the whole, `stolen` the hypervisor's part. `own` says whose time is not foreign: this process's, or
    that of the children it started and has waited for (resource.RUSAGE_CHILDREN).
    """

    def __init__(self, own=resource.RUSAGE_SELF):
        self.own_ = own
        self.share = self.stolen = None

    def seconds(self):
        with open("/proc/stat", encoding="utf-8") as lines:
            ticks = [int(field) for field in lines.readline().split()[1:9]]
        user, nice, system, _idle, _wait, irq, soft_irq, steal = (count / os.sysconf("SC_CLK_TCK") for count in ticks)
        own = resource.getrusage(self.own_)
        return time.perf_counter(), user + nice + system + irq + soft_irq + steal - own.ru_utime - own.ru_stime, steal

    def __enter__(self):
        self.start_ = self.seconds()
        return self

    def __exit__(self, *_):
        wall, foreign, stolen = (after - before for after, before in zip(self.seconds(), self.start_))
        self.share = max(0.0, foreign) / (wall * os.cpu_count())
        self.stolen = stolen / (wall * os.cpu_count())


def write(report, path):
    """Write to a temporary name first, so that a killed run leaves no half report behind."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as out:
        json.dump(report, out, indent=2)
        out.write("\n")
    os.replace(partial, path)
