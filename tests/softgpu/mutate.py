#!/usr/bin/env python3
"""Changes device code in a program, one mistake at a time, and asserts that the program's tests notice.

mutate.py TABLE FOLDER: each line of the table names a program below FOLDER, the doctest filter to run, a pattern for a
kernel's mangled name, a piece of PTX, what replaces it, and how often: all, or the number of one of its sites. The PTX
is embedded without compression, so a change of the same length is made in the executable itself. A mutant that edits
nothing is an error: the kernel was written anew, and the table wants another piece of it (list_opcodes shows them).
"""
import csv
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def kernels(image, part):
    """Where the bodies are of the kernels whose mangled names match."""
    for entry in re.finditer(rb"\.entry (\w+)\(", image):
        if fnmatch.fnmatchcase(entry.group(1).decode(), part):
            yield entry.end(), image.index(b"\n}", entry.end())


def mutated(image, part, pattern, replacement, which):
    pattern, replacement = pattern.encode(), replacement.encode()
    if len(pattern) != len(replacement):
        raise ValueError(f"{pattern} and {replacement} differ in length")
    sites = [begin + found.start() for begin, end in kernels(image, part)
             for found in re.finditer(re.escape(pattern), image[begin:end])]
    chosen = sites if which == "all" else sites[int(which):int(which) + 1]
    edited = bytearray(image)
    for site in chosen:
        edited[site:site + len(pattern)] = replacement
    return bytes(edited), len(chosen)


def survives(image, case):
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "mutant"
        program.write_bytes(image)
        program.chmod(0o755)
        arguments = [str(program), f"--test-case={case}", "--abort-after=1"]
        environment = dict(os.environ, SOFTGPU_STREAMS="eager")
        try:
            return subprocess.run(arguments, capture_output=True, timeout=120, env=environment).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def main():
    table, folder = sys.argv[1:]
    images, failed, rows = {}, 0, 0
    with open(table, newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            rows += 1
            name, case = row["program"], row["case"]
            if name not in images:
                images[name] = next(pathlib.Path(folder).rglob(name)).read_bytes()
                if not survives(images[name], case):
                    sys.exit(f"{name} fails without any mutation")
            image, edits = mutated(images[name], row["kernel"], row["pattern"], row["replacement"], row["which"])
            verdict = "edits nothing" if edits == 0 else "SURVIVED" if survives(image, case) else "caught"
            failed += verdict != "caught"
            print(f"{verdict:13} {edits:3} sites  {row['kernel']}: {row['pattern']} -> {row['replacement']}",
                  flush=True)
    print(f"{rows} mutants, {failed} not caught")
    return 1 if failed or rows == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
