"""Runs of the demo whose reports are kept: the same run is not made twice."""

import hashlib
import json
import pathlib
import shlex
import subprocess


def build_mark(demo):
    """What tells builds of the demo apart. Raises SystemExit with what to do where there is none."""
    try:
        return hashlib.sha256(pathlib.Path(demo).read_bytes()).digest()
    except OSError as error:
        raise SystemExit(f"{error}; ./run demo --steps 2 builds the demo and fetches its text") from None


def kept_report(folder, name, demo, settings, program=b""):
    """What the demo says of its one run with these settings, from `folder` if it is there already.

    `program` is its build_mark. Raises SystemExit with the demo's last words if it fails.
    """
    mark = hashlib.sha256(program + shlex.join([*demo, *settings]).encode()).hexdigest()[:12]
    report = folder / f"{name}-{mark}.json"
    if not report.exists():
        fresh = report.with_suffix(".part")
        command = [*demo, *settings, "--checkpoint", str(folder / mark), "--report", str(fresh)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              check=False)
        if done.returncode != 0:
            raise SystemExit(f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}")
        fresh.replace(report)
    return json.loads(report.read_text(encoding="utf-8"))["runs"][0]
