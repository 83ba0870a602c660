#!/usr/bin/env python3
"""The demo as a user meets it: demo_test.py LLAMA_DEMO.

A run stopped by Ctrl-C and resumed with another number of threads, and one that was killed, end with the same bits as one
that was left alone; a checkpoint of another run, a missing text and a bad option are refused with a reason; the report has
its numbers; several ways to find bases are compared in one go.
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
         "--rank", "8", "--backend", "eigen", "--validate-every", "20", "--validation-batches", "1", "--sample", "20"]


def command(folder, name, *extra):
    defaults = [word for option in (["--gap", "7"], ["--html", ""]) if option[0] not in extra for word in option]
    return [DEMO, "--text", str(folder / "text"), "--checkpoint", str(folder / name), *defaults, *SMALL, *extra]


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


def bytes_of(run):
    return run["name"], run["optimizer_bytes"], run["optimizer_bytes_predicted"]


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
    tracked = ["--finder", "tracked", "--refresh", "lazy", "--transport", "rotate"]
    for optimizer, *further in (["galore_adamw"], ["adamw"], ["q_galore_adamw_8bit"], ["galore_adamw", *tracked]):
        steps = ["--optimizer", optimizer, "--steps", "400", "--checkpoint-every", "50", *further]
        report = folder / "report.json"
        run(command(folder, "whole", *steps, "--threads", "2", "--report", str(report)), says="validation loss")
        whole = tensors(folder / f"whole-{optimizer}.safetensors")
        numbers = json.loads(report.read_text())["runs"][0]
        assert numbers["optimizer_bytes"] == numbers["optimizer_bytes_predicted"], bytes_of(numbers)
        assert 0 < numbers["validation_loss"] < 3, numbers["validation_loss"]
        for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
            name = f"stopped{len(further)}-{int(how)}"
            assert stop_early(command(folder, name, *steps, "--threads", "2"), folder, name, how) == code, "finished too early to be stopped"
            run(command(folder, name, *steps, "--threads", "1", "--resume"))
            resumed = tensors(folder / f"{name}-{optimizer}.safetensors")
            assert resumed.keys() == whole.keys()
            different = [k for k in whole if whole[k] != resumed[k]]
            assert not different, f"{optimizer} {further}, {how}: these differ after a resume: {different}"
    for known, other in (("tracked", "warm"), ("lazy", "every"), ("rotate", "keep")):
        changed = [other if word == known else word for word in steps]
        run(command(folder, "whole", *changed, "--resume"), expect=1, says="belongs to another run")

    # Every combination is a run, with a name, a checkpoint and numbers of its own.
    report, page = folder / "compared.json", folder / "compared.html"
    text = run(command(folder, "compared", "--optimizer", "adamw,galore", "--finder", "warm,tracked", "--refresh", "every,lazy",
                       "--steps", "30", "--report", str(report), "--html", str(page)))
    runs = {one["name"]: one for one in json.loads(report.read_text())["runs"]}
    ways = [f"{finder}/{refresh} 7" for finder in ("warm", "tracked") for refresh in ("every", "lazy")]
    assert list(runs) == ["adamw"] + [f"galore_adamw {way}" for way in ways], list(runs)
    for name, one in runs.items():
        way = name.split(" ", 1)[-1]
        assert way in page.read_text() and way in text, name
        assert one["optimizer_bytes"] == one["optimizer_bytes_predicted"], bytes_of(one)
        assert (folder / f"compared-{name.replace(' ', '-').replace('/', '-')}.safetensors").exists(), name
    matrices = 14
    assert runs[f"galore_adamw {ways[0]}"]["refreshes"] == 5 * matrices, "every 7 of 30 steps"
    assert runs["adamw"]["refreshes"] == 0 and "finder" not in runs["adamw"]
    more = runs[f"galore_adamw {ways[2]}"]["optimizer_bytes"] - runs[f"galore_adamw {ways[0]}"]["optimizer_bytes"]
    assert more == matrices * (8 * 8 * 4 + 8), f"a tracker keeps r x r numbers and an exponent, got {more} bytes"

    def only(*extra):
        run(command(folder, "only", "--optimizer", "galore", "--steps", "12", "--report", str(report), *extra))
        [one] = json.loads(report.read_text())["runs"]
        assert one["name"] == "galore_adamw", one["name"]
        return one

    watched = only("--finder", "warm,warm", "--refresh", "energy", "--gradient", "factored")
    assert watched["factored_weights"] == matrices and min(watched["history"]["captured"]) > 0, watched["history"]["captured"]
    assert only("--finder", "svd", "--gradient", "factored")["factored_weights"] == 0
    # A step of fewer tokens affords fewer bases.
    most, least = (only("--refresh", "budget", "--galore-options", "share=0.05", "--gradient", "dense", "--micro-batches",
                        many)["refreshes"] for many in "41")
    assert most > least >= matrices, (most, least)
    # Who finds a basis in every step still has a step without one to compare with.
    history = only("--refresh", "lazy", "--transport", "rotate", "--galore-options", "gamma_proj=1", "--gradient", "factored",
                   "--gap", "1")["history"]
    assert [n > 0 for n in history["plain_steps"]] == [n > 0 for n in history["refreshing_steps"]], history["plain_steps"]
    assert sum(history["refreshing_steps"]) == 12 * matrices, history["refreshing_steps"]

    # int8 weights are a quarter of fp32 ones and their scales; each rounding is a run.
    report.unlink()
    text = run(command(folder, "rounded", "--optimizer", "galore,galore_adamw_8bit,q_galore_adamw_8bit", "--rounding",
                       "stochastic,nearest", "--steps", "30", "--report", str(report)))
    runs = {one["name"]: one for one in json.loads(report.read_text())["runs"]}
    roundings = [f"q_galore_adamw_8bit {rounding}" for rounding in ("stochastic", "nearest")]
    assert list(runs) == ["galore_adamw", "galore_adamw_8bit", *roundings], list(runs)
    assert [runs[name]["rounding"] for name in roundings] == ["stochastic", "nearest"] and "nearest" in text
    for name, one in runs.items():
        assert one["optimizer_bytes"] == one["optimizer_bytes_predicted"], bytes_of(one)
        assert one["refresh"] == ("lazy" if name in roundings else "every"), one["refresh"]
    floats, codes = (runs[name]["weight_bytes"] for name in ("galore_adamw", roundings[0]))
    assert floats / 4 < codes < floats, (floats, codes)
    assert runs[roundings[0]]["history"]["loss"] != runs[roundings[1]]["history"]["loss"]

    run(command(folder, "whole", "--optimizer", "adamw", "--steps", "401", "--resume"), expect=1, says="belongs to another run")
    damaged = folder / "whole-adamw.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    run(command(folder, "whole", "--optimizer", "adamw", "--steps", "400", "--resume"), expect=1, says="whole-adamw.safetensors")
    run([DEMO, "--text", str(folder / "missing")], expect=105, says="missing")
    run(command(folder, "x", "--optimizer", "adamx"), expect=1, says="unknown optimizer \"adamx\"")
    run(command(folder, "x", "--galore-options", "rnak=3"), expect=1, says="has no option \"rnak\"")
    run(command(folder, "late", "--finder", "warm,randomized", "--galore-options", "passes=1"), expect=1, says="has no option \"passes\"")
    assert not list(folder.glob("late*")), "a bad option of the last run was found after the first"
    run([DEMO, "--text", str(folder / "text"), "--heads", "5"], expect=1, says="heads")
    per_layer = run(command(folder, "layer", "--optimizer", "galore", "--steps", "20", "--per-layer", "--micro-batches", "2"))
    assert "validation loss" in per_layer
print("resumed runs are the same, bit for bit; misuse is refused")
