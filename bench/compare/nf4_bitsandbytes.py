"""What bitsandbytes makes of the matrix in tests/unit/adapt/frozen_matrix_test.cpp: NF4 with double quantisation.

On the host. Prints the hashes and numbers that the test holds, and where `dequantize_4bit` departs from what its own codes
stand for. Known differences between it and us: with an odd number of weights the unused half of the last byte is 7, ours 0;
the scale of a matrix that is one block has code 0, ours 127 (both stand for 0, and the mean is the scale); its mean of the
scales is an fp32 sum, ours an fp64 one, so where sums are not exact the last bit may differ, and with it single codes of
scales.
"""

import bitsandbytes
import bitsandbytes.functional as functional
import torch


def hash_of(data):
    value = 0xCBF29CE484222325
    for byte in bytes(data):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return hex(value)


def meaning(codes, state, count):
    """The formula: book[code] * (map[scale code] * nested scale + mean)."""
    halves = torch.stack([codes.long() >> 4, codes.long() & 15], 1).flatten()[:count]
    scales = state.absmax.flatten()
    if state.nested:
        groups = torch.arange(len(scales)) // state.state2.blocksize
        scales = state.state2.code[scales.long()] * state.state2.absmax[groups] + state.offset
    book = functional.get_4bit_type("nf4", device="cpu")
    return book[halves] * scales.repeat_interleave(state.blocksize)[:count]


def coded(weight):
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return codes.flatten(), state


def main():
    rows, columns = 300, 130
    element = torch.arange(rows * columns)
    exact = (element * 7919 % 2003 - 1001).float() / 1024 * (1 + element // 64 * 37 % 11).float() / 16
    codes, state = coded(exact.reshape(rows, columns))
    print("bitsandbytes", bitsandbytes.__version__, "torch", torch.__version__)
    print("codes", len(codes), hash_of(codes.numpy()))
    print("scale codes", state.absmax.numel(), hash_of(state.absmax.numpy()))
    print("mean", float(state.offset).hex(), "nested scales", [float(x).hex() for x in state.state2.absmax])
    print("meaning", hash_of(meaning(codes, state, rows * columns).numpy().tobytes()))
    torch.manual_seed(1)
    for shape in (37, 64), (37, 96), (10, 48), (37, 100), (37, 200), (8, 576), (rows, columns):
        weight = torch.randn(shape)
        codes, state = coded(weight)
        error = (functional.dequantize_4bit(codes, state).flatten() - meaning(codes, state, weight.numel())).abs()
        print("dequantize_4bit", shape, "departs by at most", float(error.max()))


if __name__ == "__main__":
    main()
