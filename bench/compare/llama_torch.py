"""Train a byte-level Llama in PyTorch with AdamW or with galore_torch's GaLoreAdamW, and report speed, memory and loss.

The model, the learning rates and the data are those of this project's llama_demo, so that the two can be put side
by side (side_by_side.py). PyTorch gets the fastest set-up found for it: fused AdamW, scaled_dot_product_attention,
and either eager mode or torch.compile, whichever is faster on this machine (--setup fastest measures both before
training).
"""

import argparse
import math
import os
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import galore_package
import machine_report


class attention(nn.Module):
    def __init__(self, d, heads, kv_heads, rope):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.rope = heads, kv_heads, d // heads, rope
        self.q = nn.Linear(d, heads * self.head_dim, bias=False)
        self.k = nn.Linear(d, kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(d, kv_heads * self.head_dim, bias=False)
        self.o = nn.Linear(heads * self.head_dim, d, bias=False)

    def rotate(self, x, cos, sin):
        if self.rope == "half":
            first, second = x.chunk(2, dim=-1)
            return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        first, second = x[..., 0::2], x[..., 1::2]
        return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)

    def forward(self, x, cos, sin):
        batch, seq, _ = x.shape
        q = self.rotate(self.q(x).view(batch, seq, self.heads, self.head_dim).transpose(1, 2), cos, sin)
        k = self.rotate(self.k(x).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2), cos, sin)
        v = self.v(x).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return self.o(y.transpose(1, 2).reshape(batch, seq, -1))


class gated_mlp(nn.Module):
    def __init__(self, d, ffn):
        super().__init__()
        self.gate = nn.Linear(d, ffn, bias=False)
        self.up = nn.Linear(d, ffn, bias=False)
        self.down = nn.Linear(ffn, d, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class block(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.attn_norm = nn.RMSNorm(options.d, eps=options.norm_eps)
        self.attn = attention(options.d, options.heads, options.kv_heads, options.rope)
        self.mlp_norm = nn.RMSNorm(options.d, eps=options.norm_eps)
        self.mlp = gated_mlp(options.d, options.ffn)

    def forward(self, x, cos, sin):
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


class llama(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.embedding = nn.Embedding(options.vocab, options.d)
        self.blocks = nn.ModuleList(block(options) for _ in range(options.layers))
        self.norm = nn.RMSNorm(options.d, eps=options.norm_eps)
        self.head = nn.Linear(options.d, options.vocab, bias=False)
        if options.tied:
            self.head.weight = self.embedding.weight
        head_dim = options.d // options.heads
        frequency = options.rope_base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle = torch.outer(torch.arange(options.seq, dtype=torch.float64), frequency)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=options.init_std)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for layer in self.blocks:
            x = layer(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


class byte_text:
    """Bytes of a file: random windows of the first 90 %, evenly spaced windows of the last 10 %."""

    def __init__(self, path, seq, seed):
        with open(path, "rb") as text:
            data = torch.frombuffer(bytearray(text.read()), dtype=torch.uint8)
        split = len(data) - len(data) // 10
        self.train, self.validation, self.seq = data[:split], data[split:], seq
        if len(self.validation) <= seq + 1:
            raise SystemExit(
                f"--text {path}: {len(data)} bytes are too few; need more than {10 * (seq + 2)} for --seq {seq}"
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.offsets = torch.arange(seq + 1)

    def windows(self, data, starts):
        chunk = data[starts[:, None] + self.offsets].long()
        return chunk[:, :-1].contiguous(), chunk[:, 1:].contiguous()

    def batch(self, size):
        return self.windows(self.train, torch.randint(len(self.train) - self.seq, (size,), generator=self.generator))

    def validation_batches(self, windows, size):
        last = len(self.validation) - self.seq - 1
        starts = torch.linspace(0, last, min(windows, last + 1), dtype=torch.float64).long()
        for part in starts.split(size):
            yield self.windows(self.validation, part)


def is_projected(name, parameter):
    return parameter.dim() == 2 and (".attn." in name or ".mlp." in name)


def make_optimizer(model, options):
    betas = (options.beta1, options.beta2)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(
            [{"params": list(model.parameters()), "peak_lr": options.lr}],
            lr=options.lr,
            betas=betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
            fused=True,
        )
    projected = [p for name, p in model.named_parameters() if is_projected(name, p)]
    plain = [p for name, p in model.named_parameters() if not is_projected(name, p)]
    groups = [
        {"params": plain, "peak_lr": options.plain_lr},
        {
            "params": projected,
            "peak_lr": options.lr,
            "rank": options.rank,
            "update_proj_gap": options.gap,
            "scale": options.scale,
            "proj_type": "std",
        },
    ]
    return galore_package.load()(
        groups,
        lr=options.lr,
        betas=betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        no_deprecation_warning=True,
    )


def learning_rate_factor(step, options):
    """Linear warm-up, then a cosine down to options.lr_floor of the peak."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    progress = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.lr_floor + (1 - options.lr_floor) * 0.5 * (1 + math.cos(math.pi * progress))


def state_tensors(optimizer):
    for state in optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                yield value
            elif hasattr(value, "ortho_matrix"):
                bases = value.ortho_matrix
                yield from bases if isinstance(bases, list) else [bases]


def state_bytes(optimizer):
    """(bytes of the tensors' elements, bytes of the storages those tensors keep alive).

    The two differ for galore_torch: its basis is a slice of the full singular factor, which stays in memory behind
    it.
    """
    logical = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(optimizer))
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state_tensors(optimizer)
    }
    return logical, sum(storages.values())


def forward_backward(run, model, batch):
    start = time.perf_counter()
    run(*batch).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def choose_setup(model, text, options):
    """The callable to train with, and how it was chosen. Leaves the weights and the stream of batches alone."""
    if options.setup == "eager":
        return model, {"setup": "eager"}
    try:
        compiled = torch.compile(model, dynamic=False)
        generator = text.generator.get_state()
        batch = text.batch(options.batch)
        text.generator.set_state(generator)
        start = time.perf_counter()
        forward_backward(compiled, model, batch)
        compile_seconds = time.perf_counter() - start
    except Exception as error:  # whatever the compiler's reason: it is reported, and eager mode is the comparison
        if options.setup == "compile":
            raise
        return model, {"setup": "eager", "compile_failed": f"{type(error).__name__}: {str(error)[:400]}"}
    if options.setup == "compile":
        return compiled, {"setup": "compile", "compile_seconds": compile_seconds}
    seconds = {"eager": [], "compile": []}
    for round_number in range(options.calibration_rounds + 2):
        for name, run in (("eager", model), ("compile", compiled)):
            sample = forward_backward(run, model, batch)
            if round_number >= 2:
                seconds[name].append(sample)
    median = {name: statistics.median(samples) for name, samples in seconds.items()}
    fastest = min(median, key=median.get)
    chosen = {
        "setup": fastest,
        "compile_seconds": compile_seconds,
        "forward_backward_ms": {name: 1e3 * value for name, value in median.items()},
    }
    return (compiled if fastest == "compile" else model), chosen


@torch.no_grad()
def validation_loss(model, text, options):
    total = count = 0
    for tokens, targets in text.validation_batches(options.eval_windows, options.batch):
        total += model(tokens, targets).item() * targets.numel()
        count += targets.numel()
    return total / count


def train(model, run, optimizer, text, options):
    """Seconds of each step, seconds of the optimizer in each, and the losses."""
    step_seconds, optimizer_seconds, losses = [], [], []
    for step in range(options.steps):
        start = time.perf_counter()
        factor = learning_rate_factor(step, options)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]
        loss = run(*text.batch(options.batch))
        loss.backward()
        if options.clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        before_optimizer = time.perf_counter()
        optimizer.step()
        after_optimizer = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step_seconds.append(time.perf_counter() - start)
        optimizer_seconds.append(after_optimizer - before_optimizer)
        if options.log_every and (step % options.log_every == 0 or step + 1 == options.steps):
            print(
                f"step {step:5d}  loss {losses[-1]:.4f}  {1e3 * step_seconds[-1]:.0f} ms  "
                f"optimizer {1e3 * optimizer_seconds[-1]:.1f} ms",
                flush=True,
            )
    return step_seconds, optimizer_seconds, losses


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", required=True, metavar="FILE", help="bytes to train on; the last 10 %% are for validation")
    add("--report", metavar="FILE.json")
    add("--optimizer", choices=("adamw", "galore"), default="adamw")
    add("--steps", type=int, default=120)
    add("--batch", type=int, default=8)
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=2)
    add("--setup", choices=("fastest", "eager", "compile"), default="fastest")
    add(
        "--calibration-rounds",
        type=int,
        default=6,
        help="forward and backward passes of each set-up timed for 'fastest'",
    )
    add("--skip-steps", type=int, default=5, help="first steps left out of the timings")
    add("--eval-windows", type=int, default=64)
    add("--log-every", type=int, default=20, help="0 for silence")
    model = parser.add_argument_group("model")
    add = model.add_argument
    add("--vocab", type=int, default=256)
    add("--d", type=int, default=256)
    add("--layers", type=int, default=6)
    add("--heads", type=int, default=4)
    add("--kv-heads", type=int, default=4)
    add("--ffn", type=int, default=688)
    add("--seq", type=int, default=128)
    add("--rope", choices=("half", "interleaved"), default="half")
    add("--rope-base", type=float, default=10000.0)
    add("--norm-eps", type=float, default=1e-5)
    add("--init-std", type=float, default=0.02)
    add("--tied", action="store_true", help="the head shares the embedding's weights")
    optimizer = parser.add_argument_group("optimizer")
    add = optimizer.add_argument
    add("--lr", type=float, help="peak rate; default 3e-3 for adamw, 1e-2 for galore")
    add("--plain-lr", type=float, help="galore: peak rate of embedding, head and norms; default --scale times --lr")
    add("--warmup", type=int, help="steps of linear warm-up; default a tenth of --steps, at most 40")
    add("--lr-floor", type=float, default=0.1, help="share of the peak rate that the cosine ends at")
    add("--beta1", type=float, default=0.9)
    add("--beta2", type=float, default=0.999)
    add("--eps", type=float, default=1e-8)
    add("--weight-decay", type=float, default=0.0)
    add("--clip", type=float, default=0.0, help="largest global gradient norm; 0: no clipping")
    add("--rank", type=int, default=64)
    add("--gap", type=int, default=50, help="update_proj_gap: steps between two SVDs")
    add("--scale", type=float, default=0.25)
    options = parser.parse_args()
    if options.lr is None:
        options.lr = 3e-3 if options.optimizer == "adamw" else 1e-2
    if options.plain_lr is None:
        options.plain_lr = options.scale * options.lr
    if options.warmup is None:
        options.warmup = min(40, options.steps // 10)
    if options.steps <= options.skip_steps:
        parser.error(f"--steps {options.steps} must exceed --skip-steps {options.skip_steps}")
    if options.d % options.heads or options.heads % options.kv_heads or (options.d // options.heads) % 2:
        parser.error("--heads must divide --d into an even head size, and --kv-heads must divide --heads")
    return options


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    text = byte_text(options.text, options.seq, options.seed)
    model = llama(options)
    run_model, chosen = choose_setup(model, text, options)
    optimizer = make_optimizer(model, options)
    with machine_report.foreign_cpu() as foreign:
        step_seconds, optimizer_seconds, losses = train(model, run_model, optimizer, text, options)
    peak = machine_report.peak_resident_bytes()
    loss = validation_loss(model, text, options)

    timed, timed_optimizer = step_seconds[options.skip_steps :], optimizer_seconds[options.skip_steps :]
    tokens = options.batch * options.seq
    logical, held = state_bytes(optimizer)
    run = {
        "optimizer": options.optimizer,
        **chosen,
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_projected": sum(p.numel() for name, p in model.named_parameters() if is_projected(name, p)),
        "tokens_per_second": tokens * len(timed) / sum(timed),
        "tokens_per_second_of_median_step": tokens / statistics.median(timed),
        "step_ms_median": 1e3 * statistics.median(timed),
        "optimizer_share": sum(timed_optimizer) / sum(timed),
        "optimizer_ms_median": 1e3 * statistics.median(timed_optimizer),
        "steps_timed": len(timed),
        "validation_loss": loss,
        "train_loss_last": losses[-1],
        "optimizer_state_bytes": logical,
        "optimizer_state_bytes_held": held,
        "peak_resident_bytes": peak,
        "foreign_cpu_share": foreign.share,
        "stolen_cpu_share": foreign.stolen,
    }
    if options.optimizer == "galore":
        refreshes = [
            1e3 * seconds
            for step, seconds in enumerate(optimizer_seconds)
            if step >= options.skip_steps and step % options.gap == 0
        ]
        run["refreshes_timed"] = len(refreshes)
        run["refresh_step_ms_median"] = statistics.median(refreshes) if refreshes else None
    settings = {name: value for name, value in vars(options).items() if name not in ("text", "report")}
    settings["text"] = os.path.basename(options.text)
    report = {
        "tool": "llama_torch",
        "date": machine_report.now(),
        "machine": machine_report.machine(),
        "versions": machine_report.versions("torch", "galore-torch"),
        "settings": settings,
        "runs": [run],
    }
    if options.report:
        machine_report.write(report, options.report)
    print(
        f"{options.optimizer} ({run['setup']}): {run['tokens_per_second']:.0f} tokens/s, optimizer "
        f"{100 * run['optimizer_share']:.1f} % of the time, validation loss {loss:.4f}, optimizer state "
        f"{logical / 1e6:.1f} MB (held {held / 1e6:.1f} MB), peak resident {peak / 1e6:.0f} MB, "
        f"foreign CPU {100 * foreign.share:.1f} % (stolen {100 * foreign.stolen:.1f} %)"
    )


if __name__ == "__main__":
    main()
