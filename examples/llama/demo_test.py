#!/usr/bin/env python3
"""The demo as a user meets it: demo_test.py LLAMA_DEMO.

A run stopped by Ctrl-C and resumed with another number of threads, and one that was killed, end with the same bits as one
that was left alone; a checkpoint of another run, a missing text and a bad option are refused with a reason; the report has
its numbers.
"""
import json
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEMO = str(Path(sys.argv[1]).resolve())
SMALL = ["--width", "48", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--ffn", "80", "--sequence", "32", "--batch", "4",
         "--rank", "8", "--gap", "7", "--backend", "eigen", "--validate-every", "20", "--validation-batches", "1", "--sample", "20"]


def command(folder, name, *extra):
    return [DEMO, "--text", str(folder / "text"), "--checkpoint", str(folder / name), "--html", "", *SMALL, *extra]


def run(*arguments, expect=0, says=""):
    done = subprocess.run(arguments[0], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == expect, f"exit code {done.returncode}, expected {expect}:\n{text}"
    assert says in text, f"no \"{says}\" in:\n{text}"
    return text


def tensors(path):
    """Everything a run left behind but the times it took."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    return {name: data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]]
            for name, t in header.items() if name != "__metadata__" and "seconds" not in name}


def stop_early(arguments, folder, name, how):
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stderr.readline()  # a tenth of the run is done
    for _ in range(200):
        if how == signal.SIGINT or list(folder.glob(name + "*")):
            break
        time.sleep(0.01)
    process.send_signal(how)
    process.stderr.read()
    return process.wait()


with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    (folder / "text").write_bytes(b"The quality of mercy is not strain'd, it droppeth as the gentle rain from heaven. " * 200)
    for optimizer in ("galore_adamw", "adamw"):
        steps = ["--optimizer", optimizer, "--steps", "400", "--checkpoint-every", "50"]
        report = folder / "report.json"
        run(command(folder, "whole", *steps, "--threads", "2", "--report", str(report)), says="validation loss")
        whole = tensors(folder / f"whole-{optimizer}.safetensors")
        numbers = json.loads(report.read_text())["runs"][0]
        assert numbers["optimizer_bytes"] == numbers["optimizer_bytes_predicted"], numbers
        assert 0 < numbers["validation_loss"] < 3, numbers["validation_loss"]
        for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
            name = f"stopped{int(how)}"
            assert stop_early(command(folder, name, *steps, "--threads", "2"), folder, name, how) == code, "finished too early to be stopped"
            run(command(folder, name, *steps, "--threads", "1", "--resume"))
            resumed = tensors(folder / f"{name}-{optimizer}.safetensors")
            assert resumed.keys() == whole.keys()
            different = [k for k in whole if whole[k] != resumed[k]]
            assert not different, f"{optimizer}, {how}: these differ after a resume: {different}"
    run(command(folder, "whole", "--optimizer", "adamw", "--steps", "401", "--resume"), expect=1, says="belongs to another run")
    damaged = folder / "whole-adamw.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    run(command(folder, "whole", "--optimizer", "adamw", "--steps", "400", "--resume"), expect=1, says="whole-adamw.safetensors")
    run([DEMO, "--text", str(folder / "missing")], expect=105, says="missing")
    run(command(folder, "x", "--optimizer", "adamx"), expect=1, says="unknown optimizer \"adamx\"")
    run(command(folder, "x", "--galore-options", "rnak=3"), expect=1, says="has no option \"rnak\"")
    run([DEMO, "--text", str(folder / "text"), "--heads", "5"], expect=1, says="heads")
    per_layer = run(command(folder, "layer", "--optimizer", "galore", "--steps", "20", "--per-layer", "--micro-batches", "2"))
    assert "validation loss" in per_layer
print("resumed runs are the same, bit for bit; misuse is refused")
