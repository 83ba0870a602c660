#!/usr/bin/env python3
"""damaged_files.py REPLAY FIXTURE...: damages copies of fixtures; the replay program must refuse every copy with a message.

A crash by a signal, silence and success are failures; so is refusing the undamaged copy.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

replay, *fixtures = sys.argv[1:]


def damages(good: bytes) -> dict[str, bytes]:
    (header_size,) = struct.unpack_from("<Q", good)
    header, data = good[8:8 + header_size], good[8 + header_size:]

    def with_header(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + data

    def with_metadata(key: str, value: str | None) -> bytes:
        tensors = json.loads(header)
        if value is None:
            del tensors["__metadata__"][key]
        else:
            tensors["__metadata__"][key] = value
        return with_header(json.dumps(tensors).encode())

    def without(name: str) -> bytes:
        tensors = json.loads(header)
        tensors[f"not {name}"] = tensors.pop(name)
        return with_header(json.dumps(tensors).encode())

    def with_first(name: str, value: bytes) -> bytes:
        at = json.loads(header)[name]["data_offsets"][0]
        return good[:8 + header_size] + data[:at] + value + data[at + len(value):]

    out = {
        "empty": b"",
        "shorter than its length field": good[:5],
        "cut in the header": good[:8 + header_size // 2],
        "cut in the data": good[:-1],
        "bytes after the data": good + b"\0",
        "header longer than the file": struct.pack("<Q", len(good)) + good[8:],
        "header of 2^64-1 bytes": struct.pack("<Q", 2**64 - 1) + good[8:],
        "header is no JSON": with_header(b"{" + b"\xff" * (header_size - 1)),
        "header is deeply nested": with_header(b'{"a":' * 100_000 + b"0" + b"}" * 100_000),
        "header is a list": with_header(b"[]"),
        "negative offset": with_header(header.replace(b'"data_offsets":[0,', b'"data_offsets":[-4,', 1)),
        "unknown dtype": with_header(header.replace(b'"F32"', b'"F33"', 1)),
        "shape does not fit the bytes": with_header(header.replace(b'"shape":[', b'"shape":[4294967296,4294967296,', 1)),
        "unknown format": with_metadata("format", "lowrank-codec-9"),
        "no format": with_metadata("format", None),
    }
    tensors = json.loads(header)
    if tensors["__metadata__"]["format"] == "lowrank-codec-1":
        first_code = data[tensors["codes"]["data_offsets"][0]]
        for key in "codec", "block_size", "packing":
            out[f"no {key}"] = with_metadata(key, None)
            out[f"unknown {key}"] = with_metadata(key, "96")
        for name in tensors.keys() - {"__metadata__"}:
            out[f"no {name}"] = without(name)
            if name != "codes":
                out[f"{name} is not finite"] = with_first(name, struct.pack("<f", math.nan))
                out[f"{name} has another number"] = with_first(name, struct.pack("<f", 3.0))
        out["another code"] = with_first("codes", bytes([first_code ^ 0x10]))
        out["the neighbouring code"] = with_first("codes", bytes([first_code ^ 1]))
    else:
        for key in "optimizer", "options", "learning_rates", "tolerance":
            out[f"no {key}"] = with_metadata(key, None)
        out["unknown optimizer"] = with_metadata("optimizer", "of_nobody")
        out["learning rates are no list"] = with_metadata("learning_rates", "{}")
        out["tolerance is not a number"] = with_metadata("tolerance", "nan")
        out["no weight"] = without("weight")
    return out


failures = []
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "copy.safetensors")

    def run(content: bytes) -> subprocess.CompletedProcess:
        with open(path, "wb") as file:
            file.write(content)
        return subprocess.run([replay, path], capture_output=True, timeout=300, check=False)

    for fixture in fixtures:
        with open(fixture, "rb") as file:
            undamaged = file.read()
        if (result := run(undamaged)).returncode != 0:
            failures.append(f"{fixture}: refused: {result.stderr.decode(errors='replace').strip()}")
        for what, content in damages(undamaged).items():
            if content == undamaged:
                failures.append(f"{fixture}: {what}: this damage does not apply")
                continue
            result = run(content)
            said = (result.stdout + result.stderr).decode(errors="replace").strip()
            if result.returncode == 0:
                failures.append(f"{fixture}: {what}: accepted")
            elif result.returncode < 0:
                failures.append(f"{fixture}: {what}: died of signal {-result.returncode}")
            elif not result.stderr.strip():
                failures.append(f"{fixture}: {what}: refused without a message on stderr")
            else:
                print(f"{what}: {said.splitlines()[-1]}")

for failure in failures:
    print(f"FAILED {failure}", file=sys.stderr)
sys.exit(1 if failures else 0)
