#!/usr/bin/env python3
"""Compares the opcodes of compiled device code with a recorded list, so that a new one is seen before it runs.

compare_opcodes.py LIST_OPCODES RECORDED FILE...   0 if the list is the same and the software GPU executes all of them
  --update as the first argument writes the list instead
"""
import subprocess
import sys


def main(arguments):
    update = arguments[:1] == ["--update"]
    if update:
        arguments = arguments[1:]
    if len(arguments) < 3:
        sys.exit(__doc__)
    program, recorded, files = arguments[0], arguments[1], arguments[2:]
    found = subprocess.run([program, *files], check=True, capture_output=True, text=True).stdout.splitlines()
    if update:
        with open(recorded, "w", encoding="ascii") as out:
            out.writelines(line + "\n" for line in found)
        return 0
    with open(recorded, encoding="ascii") as known:
        wanted = known.read().splitlines()
    for opcode in sorted(set(found) - set(wanted)):
        print(f"new:  {opcode}")
    for opcode in sorted(set(wanted) - set(found)):
        print(f"gone: {opcode}")
    refused = subprocess.run([program, "--refused", *files], capture_output=True, text=True)
    for line in refused.stdout.splitlines():
        print(f"not executed by the software GPU: {line}")
    if not found:
        print("no opcodes at all: these files hold no PTX")
    return int(found != wanted or refused.returncode != 0 or not found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
