"""Load a checkpoint that this project wrote with Hugging Face's transformers: the loss of its window must be the same.

usage: load_in_transformers.py FOLDER [--allowed X] [--rewrite OTHER]

FOLDER holds config.json, model.safetensors and window.json: tokens, and the mean loss that we found for all but the
first of them (smollm2_reference --checkpoint FOLDER). Needs torch, transformers and safetensors. --rewrite saves the
model again as transformers does, in several files, for us to read.
"""

import argparse
import json
import pathlib
import sys

import torch
import transformers
from safetensors import safe_open


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--allowed", type=float, default=1e-4, help="difference of the losses (default: %(default)s)")
    parser.add_argument("--rewrite", type=pathlib.Path)
    options = parser.parse_args()

    with safe_open(options.folder / "model.safetensors", "pt") as file:
        names = sorted(file.keys())
    print(f"safetensors: {len(names)} tensors")

    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        options.folder, dtype=torch.float32, output_loading_info=True)
    wrong = {what: sorted(found) for what, found in report.items() if found}
    print(f"transformers {transformers.__version__}: {type(model).__name__}, "
          f"{sum(p.numel() for p in model.parameters())} parameters, {wrong or 'nothing missing or left over'}")

    window = json.loads((options.folder / "window.json").read_text())
    tokens = torch.tensor([window["tokens"]])
    with torch.no_grad():
        logits = model(tokens).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:]).item()
    difference = abs(loss - window["loss"])
    print(f"loss {loss:.6f}, ours {window['loss']:.6f}, difference {difference:.2e} (allowed {options.allowed:g})")

    if options.rewrite:
        model.save_pretrained(options.rewrite, max_shard_size="200MB")
        print(f"saved again to {options.rewrite}")
    return 0 if difference <= options.allowed and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
