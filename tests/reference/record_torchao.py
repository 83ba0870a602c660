#!/usr/bin/env python3
"""Records torchao's AdamW with moments in 4 bits and in fp8 as trajectories, adamw_{4bit,fp8}_torchao-*.safetensors.

    build/compare-venv/bin/python tests/reference/record_torchao.py FOLDER     needs torch, torchao, numpy, safetensors

Gradients are standard normal, some of them zero, of another size at every step; elements that would bring a moment within 3e-5
(of its block's scale) of a boundary between two codes are moved by a percent until none is there, so that every correct
implementation stores the same codes. To see the boundaries, the moments are followed here in fp64 from torchao's own codes.
The tolerance is five times what the same run in fp64 deviates, at least 1e-5.
"""
import json
import pathlib
import sys

import numpy
import safetensors.numpy
import torch
import torchao

LEARNING_RATES = [0.01, 0.01, 0.02, 0.0, 0.01, 0.005, 0.01, 0.01]
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.1
KINDS = {
    "4bit": (torchao.optim.AdamW4bit, 128, {"exp_avg": True, "exp_avg_sq": False}),
    "fp8": (torchao.optim.AdamWFp8, 256, {"exp_avg": True, "exp_avg_sq": True}),
}


def books(kind, state):
    """What codes stand for, in units of a block's scale, ascending; from torchao's tensors themselves."""
    if kind == "4bit":
        return numpy.sort(state.qmap.double().numpy())
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()
    return numpy.unique(every[numpy.isfinite(every)])


def scaled(moment, block, kind):
    blocks = moment.reshape(-1, block)
    largest = numpy.abs(blocks).max(1, keepdims=True)
    unit = largest if kind == "4bit" else largest / 448
    return numpy.divide(blocks, unit, out=numpy.zeros_like(blocks), where=unit > 0), largest


def close_to_boundary(moment, block, kind, book):
    x, _ = scaled(moment, block, kind)
    middle = (book[1:] + book[:-1]) / 2
    at = numpy.clip(numpy.searchsorted(middle, x), 1, len(middle) - 1)
    gap = numpy.minimum(numpy.abs(x - middle[at]), numpy.abs(x - middle[at - 1]))
    return (gap <= 3e-5 * numpy.maximum(numpy.abs(x), 1e-3 if kind == "fp8" else 1)).reshape(moment.shape)


def record(kind, shape, seed, folder):
    make, block, _ = KINDS[kind]
    rng = numpy.random.default_rng(seed)
    tensors = {"weight": rng.standard_normal(shape).astype(numpy.float32)}
    weight = torch.nn.Parameter(torch.from_numpy(tensors["weight"].copy()))
    optimizer = make([weight], lr=1.0, betas=BETAS, eps=EPS, weight_decay=DECAY)
    wide = tensors["weight"].astype(numpy.float64)
    moments = [numpy.zeros(shape), numpy.zeros(shape)]  # as torchao's codes give them
    for k, rate in enumerate(LEARNING_RATES):
        g = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 0)).astype(numpy.float32)
        g[rng.random(shape) < 0.02] = 0
        for _ in range(1000):
            new = [BETAS[i] * moments[i] + (1 - BETAS[i]) * g.astype(numpy.float64) ** (i + 1) for i in (0, 1)]
            state = optimizer.state.get(weight)
            names = ("exp_avg", "exp_avg_sq")
            if state is None:  # the first step has not made the books yet: from a step on another parameter
                other = torch.nn.Parameter(torch.ones(shape))
                spare = make([other], lr=0.0)
                other.grad = torch.ones(shape)
                spare.step()
                state = spare.state[other]
            bad = numpy.zeros(shape, bool)
            for i in (0, 1):
                bad |= close_to_boundary(new[i], block, kind, books(kind, state[names[i]]))
            if not bad.any():
                break
            g[bad] = g[bad] * numpy.float32(1.01) + numpy.float32(1e-6) * (g[bad] == 0)
        else:
            raise SystemExit(f"{kind}: numbers stay near boundaries")
        tensors[f"gradient.{k}"] = g
        weight.grad = torch.from_numpy(g.copy())
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        optimizer.step()
        tensors[f"expected.{k}"] = weight.detach().numpy().copy()
        corrections = [1 - beta ** (k + 1) for beta in BETAS]
        wide = wide - rate * DECAY * wide
        wide -= rate * (new[0] / corrections[0]) / (numpy.sqrt(new[1]) / numpy.sqrt(corrections[1]) + EPS)
        moments = [optimizer.state[weight][name].dequantize().double().numpy() for name in names]
    moved = numpy.abs(tensors[f"expected.{len(LEARNING_RATES) - 1}"] - tensors["weight"]).max()
    deviation = numpy.abs(wide - tensors[f"expected.{len(LEARNING_RATES) - 1}"]).max() / moved
    metadata = {
        "format": "lowrank-replay-1",
        "source": f"torchao {torchao.__version__} ({make.__name__}), torch {torch.__version__}, seed {seed}",
        "optimizer": f"adamw_{kind}_torchao",
        "options": json.dumps({"betas": BETAS, "eps": EPS, "weight_decay": DECAY, "block_size": block}),
        "learning_rates": json.dumps(LEARNING_RATES),
        "tolerance": f"{max(1e-5, 5 * deviation):.0e}",
    }
    path = pathlib.Path(folder) / f"adamw_{kind}_torchao-{shape[0]}x{shape[1]}.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata)
    print(f"{path}: an independent fp64 run deviates {deviation:.1e} of the way, tolerance {metadata['tolerance']}")


def main():
    torch.set_num_threads(1)
    for seed, kind in ((41, "4bit"), (42, "fp8")):
        record(kind, (40, 128), seed, sys.argv[1])


main()
