"""Bytes and instructions per parameter of kernels over contiguous tensors, against what an H100 can move and issue."""
import re

BYTES_A_SECOND = 3.0e12  # copies measured on an H100; its data sheet says 3.35e12
CLOCK = 1.755e9
WARP_INSTRUCTIONS_A_SECOND = 132 * 4 * CLOCK  # processors, schedulers of each
LANES = 32

RULES = {"adam_formula": 2, "sgd_formula": 1, "lion_formula": 1, "plain_sgd_formula": 0}  # moments
MOMENTS = {  # bytes of a moment, scales included
    "fp32_moment": 4,
    "quantized_moment<bitsandbytes": 1 + 4 / 256,
    "quantized_moment<torchao<dynamic8": 1 + 4 / 256,
    "quantized_moment<torchao<fp8": 1 + 4 / 256,
    "quantized_moment<torchao<book4": 0.5 + 4 / 128,
}
GRADIENTS = {"float": 4, "bf16": 2}
WEIGHTS = {"fp32_tiles": 8, "bf16_tiles": 4, "master_tiles": 8 + 2}  # read and written


def code_bytes(kernel: str) -> float | None:
    """Bytes of a number in the codes of a codec, what its block shares included."""
    block = int(re.search(r"<(\d+)", kernel)[1])
    if found := re.search(r"affine<(\d)", kernel):
        return int(found[1]) / 8 + 2 * 2 / block
    if found := re.search(r"symmetric<(\d)", kernel):
        return int(found[1]) / 8 + 4 / block
    if "book4<" in kernel:
        return 0.5 + 4 / block
    return 1 + 4 / block if "dynamic8<" in kernel or "fp8<" in kernel else None


def bytes_of(kernel: str) -> float | None:
    """Bytes that a kernel must move for a parameter, each counted once; nothing for kernels whose traffic depends on shapes."""
    if found := re.match(r"run_tiles<\d+, elementwise<(\w+), .*>::(apply|update)_opened<(.*?)(?:, (\w+), (\w+_tiles)(?:<bf16>)?)?>>$", kernel):
        moment = next((size for name, size in MOMENTS.items() if found[3].startswith(name)), 0)
        # update: gradient in, direction out; apply: gradient in, weight in and out.
        return (8 if found[2] == "update" else GRADIENTS[found[4]] + WEIGHTS[found[5]]) + 2 * RULES[found[1]] * moment
    if re.match(r"run_line_tiles<\d+, (de)?quantize(_stochastic)?<", kernel):
        return 4 + code_bytes(kernel)
    return None


def report(table: dict[tuple[str, str], dict[str, str]], architecture: str) -> str:
    lines = [
        f"{architecture}, model of an H100: {BYTES_A_SECOND / 1e12:.1f} TB/s, {WARP_INSTRUCTIONS_A_SECOND / 1e9:.0f} G warp instructions/s",
        f"{'bytes':>7} {'instr.':>7} {'budget':>7} {'share':>6} {'Gparam/s':>9}  kernel (per parameter; instructions that fit beside the bytes)",
    ]
    for (kernel, of), row in sorted(table.items()):
        size = bytes_of(kernel) if of == architecture else None
        if size is None:
            continue
        elements = int(re.search(r"<(\d+)", kernel)[1])
        instructions = int(row["turn"]) * LANES / elements
        budget = size / BYTES_A_SECOND * WARP_INSTRUCTIONS_A_SECOND * LANES
        rate = min(BYTES_A_SECOND / size, WARP_INSTRUCTIONS_A_SECOND * elements / int(row["turn"])) / 1e9
        lines.append(f"{size:7.2f} {instructions:7.1f} {budget:7.0f} {instructions / budget:6.0%} {rate:9.1f}  {kernel}")
    return "\n".join(lines)
