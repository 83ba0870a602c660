#!/usr/bin/env python3
"""The planner as a user meets it: plan_test.py LLAMA_PLAN.

Every model with every optimizer has a plan whose lines add up, on the terminal and as JSON; one that does not fit, an
unknown name and a number beyond 64 bits are refused with a reason and without a file.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PLAN = str(Path(sys.argv[1]).resolve())
MODELS = ["llama-60m", "llama-130m", "llama-350m", "llama-1b", "llama-7b", "llama-13b", "llama-30b", "llama-70b"]
OPTIMIZERS = ["adamw", "adamw_8bit", "adamw_4bit", "galore_adamw", "galore_adamw_8bit", "q_galore_adamw_8bit"]


def run(*arguments, expect=0, says=""):
    done = subprocess.run([PLAN, *arguments], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == expect, f"exit code {done.returncode}, expected {expect}:\n{text}"
    assert says in text, f"no \"{says}\" in:\n{text}"
    return text


def planned(folder, *arguments):
    path = Path(folder) / "plan.json"
    text = run(*arguments, "--json", str(path))
    plan = json.loads(path.read_text())
    shared = {}
    for line in plan["lines"]:
        assert str(line["bytes"]) in text, line
        shared.setdefault(line["overlay"] or line["kind"] + line["what"], []).append(line["bytes"])
    assert plan["peak"] == sum(map(max, shared.values()))
    assert plan["resident"] == sum(l["bytes"] for l in plan["lines"] if l["kind"] in ("weights", "basis", "state"))
    return plan


with tempfile.TemporaryDirectory() as folder:
    for optimizer in OPTIMIZERS:
        residents = [planned(folder, "--model", model, "--optimizer", optimizer)["resident"] for model in MODELS]
        assert residents == sorted(residents), (optimizer, residents)
    by_optimizer = {o: planned(folder, "--model", "llama-7b", "--optimizer", o)["resident"] for o in OPTIMIZERS}
    assert sorted(by_optimizer, key=by_optimizer.get, reverse=True) == [
        "adamw", "galore_adamw", "adamw_8bit", "galore_adamw_8bit", "adamw_4bit", "q_galore_adamw_8bit"], by_optimizer

    # Each choice moves what it is about, and nothing else.
    def kinds(*arguments):
        sums = {}
        for line in planned(folder, "--model", "llama-1b", "--optimizer", "galore_adamw", *arguments)["lines"]:
            sums[line["kind"]] = sums.get(line["kind"], 0) + line["bytes"]
        return sums

    usual = kinds()
    for arguments, more in ((["--checkpointing", "off"], {"activations"}), (["--gradient", "dense", "--gradients", "all"],
                            {"gradients"}), (["--batch", "4"], {"activations"}), (["--rank", "600"], {"basis", "state"})):
        other = kinds(*arguments)
        assert {k for k in usual if other[k] > usual[k]} - {"workspace"} == more, (arguments, usual, other)
    assert kinds("--weights", "bf16")["weights"] < usual["weights"]

    path = Path(folder) / "refused.json"
    run("--model", "llama-60m", "--available", "0.01", expect=1, says="are missing")
    run("--model", "llama-60m", "--available", "16")
    run("--batch", "4611686018427387904", "--json", str(path), expect=1, says="does not fit 64 bits")
    run("--json", str(Path(folder) / "no" / "such.json"), expect=1, says="cannot write")
    for bad in (["--model", "llama-8b"], ["--optimizer", "adam8"], ["--batch", "0"], ["--rank", "-1"], ["--gradient", "none"]):
        assert run(*bad, "--json", str(path), expect=105, says=bad[0])
    assert not path.exists()
print("ok")
