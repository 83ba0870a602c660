#!/usr/bin/env python3
"""Runs the program of questions and compares its answers with those that were recorded.

compare.py PROGRAM RECORD: every answer of the record has to be given again, in its group; questions that the record
does not know are listed. Lines that begin with ~ are for reading, and cuBLAS writes complaints of its own between them.
"""
import subprocess
import sys


def answers(text):
    found, group = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            group = line
        elif " = " in line and not line.startswith(("~", " **")):
            question, answer = line.split(" = ", 1)
            found[group, question] = answer
    return found


def main():
    program, record = sys.argv[1:]
    given = answers(subprocess.run([program], capture_output=True, text=True, check=True).stdout)
    with open(record) as file:
        recorded = answers(file.read())
    failed = 0
    for (group, question), answer in recorded.items():
        if given.get((group, question)) != answer:
            print(f"{group} {question}: recorded {answer}, given {given.get((group, question))}")
            failed += 1
    for group, question in given.keys() - recorded.keys():
        print(f"not recorded: {group} {question} = {given[group, question]}")
    print(f"{len(recorded)} recorded answers, {failed} differ")
    return 1 if failed or not recorded else 0


if __name__ == "__main__":
    sys.exit(main())
