"""Forward and backward passes through SmolLM2-135M: PyTorch's tokens a second and ours, in turns, on the same tokens.

Ours writes the model with `smollm2_reference --checkpoint` first; torch gets the same fp32 weights, the same two windows of
text, scaled_dot_product_attention, and gradients of all weights. The losses must agree. Prints JSON.

  smollm2_torch.py --build build/release --data build/data [--threads 2] [--rounds 5] [--turns 3] [--compile]
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

import machine_report
import safetensors.torch
import torch
import torch.nn.functional as F

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, BASE, EPSILON = 30, 576, 9, 3, 64, 1e5, 1e-5


def rope(length):
    angles = torch.arange(length, dtype=torch.float64)[:, None] * BASE ** (-2 * torch.arange(HEAD // 2, dtype=torch.float64) / HEAD)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def loss_of(weights, tokens, cos, sin):
    batch, length = tokens.shape
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(LAYERS):
        def weight(name):
            return weights[f"model.layers.{layer}.{name}.weight"]

        h = F.rms_norm(x, (WIDTH,), weight("input_layernorm"), EPSILON)
        q, k, v = (F.linear(h, weight(f"self_attn.{name}_proj")).view(batch, length, -1, HEAD).transpose(1, 2)
                   for name in "qkv")
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + F.linear(y.transpose(1, 2).reshape(batch, length, WIDTH), weight("self_attn.o_proj"))
        h = F.rms_norm(x, (WIDTH,), weight("post_attention_layernorm"), EPSILON)
        h = F.silu(F.linear(h, weight("mlp.gate_proj"))) * F.linear(h, weight("mlp.up_proj"))
        x = x + F.linear(h, weight("mlp.down_proj"))
    logits = F.linear(F.rms_norm(x, (WIDTH,), weights["model.norm.weight"], EPSILON), weights["model.embed_tokens.weight"])
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def theirs(function, weights, tokens, rounds):
    cos, sin = rope(tokens.shape[1])
    best, loss = float("inf"), None
    for number in range(rounds + 1):
        for w in weights.values():
            w.grad = None
        start = time.perf_counter()
        loss = function(weights, tokens, cos, sin)
        loss.backward()
        if number > 0:
            best = min(best, time.perf_counter() - start)
    return tokens.numel() / best, float(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--data", default="build/data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = os.path.join(options.data, "SmolLM2-135M-Instruct.Q4_1.gguf")
    text = os.path.join(options.data, "hamlet_gut.txt")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([os.path.join(options.build, "examples/smollm2/smollm2_reference"), "--model", model, "--texts",
                        options.data, "--checkpoint", folder], check=True, stdout=subprocess.DEVNULL)
        weights = safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
    for w in weights.values():
        w.requires_grad_(True)
    binary = os.path.join(options.build, "bench/llama/model_pass")
    command = [binary, "--model", model, "--text", text, "--threads", str(options.threads), "--rounds", str(options.rounds)]
    tokens = torch.tensor(json.loads(subprocess.run([*command, "--print-tokens"], check=True,
                                                    stdout=subprocess.PIPE).stdout)["tokens"]).view(2, 128)
    function = torch.compile(loss_of) if options.compile else loss_of
    turns = []
    for _ in range(options.turns):
        ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        speed, loss = theirs(function, weights, tokens, options.rounds)
        turns.append({"ours": ours["tokens_per_second"], "torch": speed, "ours_loss": ours["loss"], "torch_loss": loss})
    assert all(abs(turn["ours_loss"] - turn["torch_loss"]) < 1e-4 for turn in turns), turns
    best_ours, best_torch = max(t["ours"] for t in turns), max(t["torch"] for t in turns)
    print(json.dumps({"machine": machine_report.machine(), "threads": options.threads, "turns": turns,
                      "ours_tokens_per_second": best_ours, "torch_tokens_per_second": best_torch,
                      "ratio": best_ours / best_torch}))


if __name__ == "__main__":
    main()
