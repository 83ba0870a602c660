"""NF4 matrices with double quantization between bitsandbytes and us: the same bytes, and the same numbers out of them.

usage: nf4_checkpoint.py [--program build/release/bench/adapt/peft_exchange]

bitsandbytes quantizes random matrices; `peft_exchange nf4` reads its tensors, opens them, and writes them again for bitsandbytes
to open. Needs torch, bitsandbytes and safetensors; runs on the CPU.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import bitsandbytes
import safetensors.torch
import torch
from bitsandbytes import functional

SHAPES = {"large": (640, 577), "tail": (33, 70), "row": (1, 64), "odd": (3, 7)}
STATE = ".quant_state.bitsandbytes__nf4"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("build/release/bench/adapt/peft_exchange"))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, bitsandbytes {bitsandbytes.__version__}, safetensors {safetensors.__version__}")
    torch.manual_seed(1)
    theirs, values = {}, {}
    for name, shape in SHAPES.items():
        codes, state = functional.quantize_4bit(torch.randn(shape), blocksize=64, compress_statistics=True,
                                                quant_type="nf4")
        theirs[name] = codes
        theirs.update({f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()})
        values[name] = functional.dequantize_4bit(codes, state)
    with tempfile.TemporaryDirectory() as folder:
        file, written = pathlib.Path(folder) / "theirs.safetensors", pathlib.Path(folder) / "ours.safetensors"
        safetensors.torch.save_file(theirs, file)
        subprocess.run([options.program, "nf4", "--base", file, "--merged", written], check=True)
        ours = safetensors.torch.load_file(written)
    wrong = 0
    for name, expected in values.items():
        parts = {key[len(name) + 1:]: tensor for key, tensor in ours.items() if key.startswith(name + ".")}
        opened = torch.equal(parts.pop("opened"), expected)
        # The state is JSON: the same members, whatever the spaces.
        same = all(torch.equal(tensor, ours[key]) for key, tensor in theirs.items()
                   if key.split(".")[0] == name and not key.endswith(STATE))
        same &= json.loads(bytes(ours[name + STATE].tolist())) == json.loads(bytes(theirs[name + STATE].tolist()))
        state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        back = torch.equal(functional.dequantize_4bit(ours[name], state), expected)
        wrong += not (opened and same and back)
        print(f"{name:<6} {str(tuple(expected.shape)):<11} opened by us: {'equal' if opened else 'WRONG'}; written by us: "
              f"{'equal' if same else 'WRONG'}; opened by bitsandbytes: {'equal' if back else 'WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
