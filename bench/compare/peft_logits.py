"""Adapters between PEFT and us, both ways: the logits of a small random Llama must be the same.

usage: peft_logits.py [--program build/release/bench/adapt/peft_exchange] [--allowed 1e-5] [--report FILE]

Ours in PEFT: `peft_exchange make` writes a directory, and the model with the adapters merged by our own arithmetic; PEFT loads
the directory. PEFT's in ours: PEFT saves adapters of random numbers, and `peft_exchange apply` merges what it reads. What only
PEFT can do must be refused. The same directories written for llama.cpp (`peft_exchange gguf`) are read by gguf, their rows put
back in order by transformers, and merged with the one formula that llama.cpp has. Needs torch, transformers, peft, gguf and
safetensors; everything is fp32 on the CPU.
"""

import argparse
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import peft
import safetensors
import safetensors.torch
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

GGUF_NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
              "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
HEADS, KV_HEADS = 4, 2
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OURS = ["lora", "gaussian", "orthogonal", "rslora", "patterns", "rslora_patterns", "olora", "lora_xs", "nola",
        "nola_vision", "deep_lora"]
THEIRS = {
    "lora": dict(r=4, lora_alpha=6, target_modules=PROJECTIONS),
    "gaussian": dict(r=4, lora_alpha=6, target_modules=PROJECTIONS, init_lora_weights="gaussian", lora_dropout=0.1),
    "orthogonal": dict(r=4, lora_alpha=6, target_modules=PROJECTIONS, init_lora_weights="orthogonal"),
    "rslora": dict(r=5, lora_alpha=7, target_modules=["q_proj", "v_proj"], use_rslora=True),
    "all-linear": dict(r=3, lora_alpha=7, target_modules="all-linear"),
    "expression": dict(r=3, lora_alpha=7, target_modules=r"model\.layers\.\d+\.self_attn\.(q|v)_proj"),
    "patterns": dict(r=4, lora_alpha=6, target_modules=PROJECTIONS,
                     rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 6, "^model.layers.0.self_attn.v_proj": 1},
                     alpha_pattern={"down_proj": 11, "layers.1.mlp.up_proj": 3, "mlp.(gate|up)_proj": 2.5}),
    "rslora_patterns": dict(r=4, lora_alpha=6, target_modules=PROJECTIONS, use_rslora=True,
                            rank_pattern={"q_proj": 2}, alpha_pattern={"down_proj": 11}),
    "embedding": dict(r=4, lora_alpha=6, target_modules=["embed_tokens", "lm_head", "o_proj"]),
}
CONVERTED = {init: dict(r=4, lora_alpha=6, target_modules=PROJECTIONS, init_lora_weights=init)
             for init in ("olora", "pissa")}
REFUSED = {
    "dora": (dict(r=4, target_modules=["q_proj"], use_dora=True), "DoRA"),
    "olora": (dict(r=4, target_modules=["q_proj"], init_lora_weights="olora"), "twice the rank"),
    "pissa": (dict(r=4, target_modules=["q_proj"], init_lora_weights="pissa"), "twice the rank"),
    "lora_bias": (dict(r=4, target_modules=["q_proj"], lora_bias=True), "lora_bias"),
    "modules_to_save": (dict(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]), "modules_to_save"),
    "copied embedding": (dict(r=4, target_modules=["embed_tokens"]), "save_embedding_layers"),
    "vera": (None, "VERA"),
}


def model_in(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_base(folder):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                                      num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=64,
                                      tie_word_embeddings=False, initializer_range=0.1)
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


def merged_logits(base, merged, tokens):
    model = model_in(base)
    missing = model.load_state_dict(safetensors.torch.load_file(merged), strict=True)
    assert not missing.missing_keys and not missing.unexpected_keys
    return logits_of(model, tokens)


def randomised(model, kind):
    config = peft.VeraConfig(r=4, target_modules=["q_proj"]) if kind is None else peft.LoraConfig(
        task_type="CAUSAL_LM", **kind)
    torch.manual_seed(2)
    adapted = peft.get_peft_model(model, config).eval()
    return adapted


def disturb(adapted):
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))


class Comparison:
    def __init__(self, options, folder):
        self.options, self.folder, self.rows = options, folder, []
        self.base = folder / "base"
        make_base(self.base)
        self.weights = self.base / "model.safetensors"
        self.tokens = torch.randint(0, 96, (3, 24), generator=torch.Generator().manual_seed(4))
        self.plain = logits_of(model_in(self.base), self.tokens)

    def run(self, command, adapter, merged, *more):
        return subprocess.run([self.options.program, command, "--base", self.weights, "--adapter", adapter, "--merged",
                               merged, *more], capture_output=True, text=True)

    def compare(self, way, name, theirs, ours):
        size = self.plain.abs().max().item()
        row = {"way": way, "adapter": name, "difference": (theirs - ours).abs().max().item() / size,
               "change": (theirs - self.plain).abs().max().item() / size}
        row["passed"] = row["difference"] <= self.options.allowed and row["change"] > 0.01
        self.add(row, f"differ by {row['difference']:.1e}, the adapter changes them by {row['change']:.2f}")

    def add(self, row, text):
        self.rows.append(row)
        print(f"{row['way']:<16} {row['adapter']:<18} {'' if row['passed'] else 'WRONG: '}{text}")

    def ours_in_peft(self, method):
        adapter, merged = self.folder / f"ours_{method}", self.folder / f"ours_{method}.safetensors"
        done = self.run("make", adapter, merged, "--method", method)
        if done.returncode:
            return self.add({"way": "ours in PEFT", "adapter": method, "passed": False}, done.stderr.strip())
        model = peft.PeftModel.from_pretrained(model_in(self.base), adapter).eval()
        self.compare("ours in PEFT", method, logits_of(model, self.tokens), merged_logits(self.base, merged, self.tokens))
        self.in_gguf(method, adapter, logits_of(model, self.tokens))
        again = self.folder / f"again_{method}"
        model.save_pretrained(again)
        self.read("ours, PEFT, ours", method, again, logits_of(model, self.tokens))

    def read(self, way, name, adapter, logits):
        merged = self.folder / "read.safetensors"
        done = self.run("apply", adapter, merged)
        if done.returncode:
            return self.add({"way": way, "adapter": name, "passed": False}, done.stderr.strip())
        self.compare(way, name, logits, merged_logits(self.base, merged, self.tokens))

    def in_gguf(self, name, adapter, logits):
        file = self.folder / "adapter.gguf"
        done = subprocess.run([self.options.program, "gguf", "--adapter", adapter, "--merged", file, "--heads", str(HEADS),
                               "--kv-heads", str(KV_HEADS)], capture_output=True, text=True)
        if done.returncode:
            return self.add({"way": "in GGUF", "adapter": name, "passed": False}, done.stderr.strip())
        reader = gguf.GGUFReader(file)
        found = {tensor.name: tensor.data for tensor in reader.tensors}
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        model, rows = model_in(self.base), LlamaTensorProcessor()
        used = set()
        with torch.no_grad():
            for module, linear in model.named_modules():
                part = module.split(".")[-1]
                if part not in GGUF_NAMES:
                    continue
                stem = f"blk.{module.split('.')[2]}.{GGUF_NAMES[part]}.weight"
                if stem + ".lora_a" not in found:
                    continue
                used |= {stem + ".lora_a", stem + ".lora_b"}
                a, b = found[stem + ".lora_a"], found[stem + ".lora_b"]
                change = (alpha / b.shape[1] if alpha else 1) * (b.astype("float64") @ a.astype("float64"))
                if part in ("q_proj", "k_proj"):
                    change = rows._reverse_permute_weights(change, HEADS, HEADS if part == "q_proj" else KV_HEADS)
                linear.weight.add_(torch.from_numpy(change.copy()))
        assert used == set(found), set(found) - used
        self.compare("in GGUF", name, logits, logits_of(model, self.tokens))

    def theirs_in_ours(self, name, kind):
        adapted = randomised(model_in(self.base), kind)
        disturb(adapted)
        adapter = self.folder / f"theirs_{name}"
        adapted.save_pretrained(adapter, save_embedding_layers=False)
        self.read("PEFT's in ours", name, adapter, logits_of(adapted, self.tokens))

    def converted(self, name, kind):
        adapted = randomised(model_in(self.base), kind)
        start, adapter = self.folder / f"start_{name}", self.folder / f"converted_{name}"
        adapted.peft_config["default"].init_lora_weights = True
        adapted.save_pretrained(start)
        adapted.peft_config["default"].init_lora_weights = name
        disturb(adapted)
        adapted.save_pretrained(adapter, path_initial_model_for_weight_conversion=start)
        self.read("PEFT's in ours", name + ", converted", adapter, logits_of(adapted, self.tokens))

    def refused(self, name, kind, reason):
        adapter = self.folder / f"refused_{name}"
        randomised(model_in(self.base), kind).save_pretrained(adapter)
        done = self.run("apply", adapter, self.folder / "refused.safetensors")
        passed = done.returncode != 0 and reason in done.stderr and not (self.folder / "refused.safetensors").exists()
        self.add({"way": "refused", "adapter": name, "passed": passed}, done.stderr.strip().replace(str(adapter), ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("build/release/bench/adapt/peft_exchange"))
    parser.add_argument("--allowed", type=float, default=1e-5,
                        help="largest difference over the largest logit (default: %(default)s)")
    parser.add_argument("--report", type=pathlib.Path)
    options = parser.parse_args()
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft, safetensors)}
    versions["gguf"] = importlib.metadata.version("gguf")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    torch.use_deterministic_algorithms(True)
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(options, pathlib.Path(folder))
        for method in OURS:
            comparison.ours_in_peft(method)
        for name, kind in THEIRS.items():
            comparison.theirs_in_ours(name, kind)
        for name, kind in CONVERTED.items():
            comparison.converted(name, kind)
        for name, (kind, reason) in REFUSED.items():
            comparison.refused(name, kind, reason)
    if options.report:
        options.report.write_text(json.dumps({"versions": versions, "allowed": options.allowed,
                                              "rows": comparison.rows}, indent=1) + "\n")
    wrong = [row for row in comparison.rows if not row["passed"]]
    print(f"{len(comparison.rows) - len(wrong)} of {len(comparison.rows)} as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
