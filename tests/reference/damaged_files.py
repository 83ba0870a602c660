#!/usr/bin/env python3
"""damaged_files.py REPLAY FIXTURE: damages copies of a fixture; the replay program must refuse every copy with a message.

A crash by a signal, silence and success are failures; so is refusing the undamaged copy.
"""
import os
import struct
import subprocess
import sys
import tempfile

replay, fixture = sys.argv[1:3]
with open(fixture, "rb") as file:
    good = file.read()
(header_size,) = struct.unpack_from("<Q", good)
header, data = good[8:8 + header_size], good[8 + header_size:]


def with_header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + data


damaged = {
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
}

failures = []
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "copy.safetensors")

    def run(content: bytes) -> subprocess.CompletedProcess:
        with open(path, "wb") as file:
            file.write(content)
        return subprocess.run([replay, path], capture_output=True, timeout=300, check=False)

    if (result := run(good)).returncode != 0:
        failures.append(f"undamaged: refused: {result.stderr.decode(errors='replace').strip()}")
    for what, content in damaged.items():
        if content == good:
            failures.append(f"{what}: this damage does not apply to {fixture}")
            continue
        result = run(content)
        said = (result.stdout + result.stderr).decode(errors="replace").strip()
        if result.returncode == 0:
            failures.append(f"{what}: accepted")
        elif result.returncode < 0:
            failures.append(f"{what}: died of signal {-result.returncode}")
        elif not result.stderr.strip():
            failures.append(f"{what}: refused without a message on stderr")
        else:
            print(f"{what}: {said.splitlines()[-1]}")

for failure in failures:
    print(f"FAILED {failure}", file=sys.stderr)
sys.exit(1 if failures else 0)
