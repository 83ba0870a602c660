"""What PyTorch takes on this GPU for what bench/device/step_bench.cu measures: AdamW, an exact SVD, svd_lowrank, a GaLore step.

usage: device_torch.py        needs torch with CUDA
"""

import torch


def milliseconds(body, count):
    """Mean of `count` calls after two that are not counted."""
    for _ in range(2):
        body()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(count):
        body()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / count


def report(name, ms):
    print(f"{name:58} {ms:9.4f} ms", flush=True)


def adamw(rows, cols, dtype):
    weight = torch.nn.Parameter(torch.randn(rows, cols, device="cuda", dtype=dtype) * 0.02)
    weight.grad = torch.randn_like(weight) * 1e-3
    optimizer = torch.optim.AdamW([weight], fused=True)
    report(f"torch AdamW fused, {dtype}, {rows}x{cols}", milliseconds(optimizer.step, 20))


def galore_step(rows, cols, rank, dtype):
    """Projection, Adam in the subspace and the way back as galore_torch has them."""
    gradient = torch.randn(rows, cols, device="cuda", dtype=dtype) * 1e-3
    weight = torch.randn(rows, cols, device="cuda", dtype=dtype) * 0.02
    basis = torch.linalg.qr(torch.randn(rows, rank, device="cuda"))[0].to(dtype)
    mean = torch.zeros(rank, cols, device="cuda", dtype=dtype)
    square = torch.zeros_like(mean)

    def body():
        projected = basis.t() @ gradient
        mean.mul_(0.9).add_(projected, alpha=0.1)
        square.mul_(0.999).addcmul_(projected, projected, value=0.001)
        direction = mean / square.sqrt().add_(1e-6)
        weight.add_(basis @ direction, alpha=-1e-4)

    report(f"galore_torch's step, {dtype}, r={rank} {rows}x{cols}", milliseconds(body, 20))


def main():
    print(torch.__version__, torch.cuda.get_device_name())
    for dtype in (torch.float32, torch.bfloat16):
        adamw(8192, 8192, dtype)
    for cols in (4096, 11008):
        for rank in (128, 1024):
            for dtype in (torch.float32, torch.bfloat16):
                galore_step(4096, cols, rank, dtype)
            gradient = torch.randn(4096, cols, device="cuda")
            report(f"torch.svd_lowrank, q={rank} 4096x{cols}",
                   milliseconds(lambda: torch.svd_lowrank(gradient, q=rank, niter=2), 3))
    gradient = torch.randn(4096, 4096, device="cuda")
    report("torch.linalg.svd, 4096x4096", milliseconds(lambda: torch.linalg.svd(gradient, full_matrices=False), 1))


if __name__ == "__main__":
    main()
