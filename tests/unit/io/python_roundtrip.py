#!/usr/bin/env python3
"""python_roundtrip.py UNIT_IO: files go from unit_io to the Python package `safetensors`, through it, and back.

Exits with 77 and says why if the packages safetensors and numpy are not installed.
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy
    import safetensors
    import safetensors.numpy
except ImportError as problem:
    print(f"skipped: {problem}")
    sys.exit(77)

program = os.path.abspath(sys.argv[1])


def unit_io(test: str, folder: str) -> None:
    result = subprocess.run([program, f"--test-case={test}"], env={**os.environ, "LOWRANK_EXCHANGE": folder},
                            capture_output=True, text=True, check=False)
    if result.returncode != 0 or "test cases: 1 | 1 passed" not in " ".join(result.stdout.split()):
        sys.exit(f"unit_io '{test}' failed:\n{result.stdout}{result.stderr}")


# The package spells types differently when it writes.
NAMES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
         "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32",
         "F32": "float32", "F64": "float64", "I64": "int64", "U64": "uint64"}


def written_by_the_package(path: str) -> bytes:
    """What the package writes after it has read `path`: every type, bytes as they are."""
    with open(path, "rb") as file:
        tensors = safetensors.deserialize(file.read())
    with safetensors.safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
    arrays = {name: numpy.frombuffer(bytes(info["data"]), dtype=numpy.uint8) for name, info in tensors}
    types = safetensors.TensorSpec if hasattr(safetensors, "TensorSpec") else None
    entries = {}
    for name, info in tensors:
        field = {"dtype": NAMES[info["dtype"]], "shape": list(info["shape"])}
        if types:
            entries[name] = types(**field, data_ptr=arrays[name].ctypes.data, data_len=arrays[name].nbytes)
        else:
            entries[name] = {**field, "data": arrays[name].tobytes()}
    return bytes(safetensors.serialize(entries, metadata))


with tempfile.TemporaryDirectory() as folder:
    unit_io("files are written for other programs", folder)
    for name in ("all", "checkpoint"):
        path = os.path.join(folder, f"{name}.safetensors")
        with open(path, "rb") as file:
            ours = file.read()
        theirs = written_by_the_package(path)
        same = "the same bytes" if ours == theirs else "the same size" if len(ours) == len(theirs) else "another layout"
        print(f"{name}: {len(ours)} bytes, rewritten by safetensors {safetensors.__version__} with {same}")
        with open(path, "wb") as file:
            file.write(theirs)
    checkpoint = safetensors.numpy.load_file(os.path.join(folder, "checkpoint.safetensors"))
    assert checkpoint["run.step"].shape == () and checkpoint["run.step"] == 12, checkpoint["run.step"]
    assert checkpoint["run.loss"] == numpy.float32(0.1), checkpoint["run.loss"]
    expected = (numpy.arange(6, dtype=numpy.float32) / numpy.float32(3)).reshape(2, 3)
    assert numpy.array_equal(checkpoint["run.moment"], expected), checkpoint["run.moment"]
    unit_io("files of other programs are read", folder)
print("read back by unit_io")
