#!/usr/bin/env python3
"""expect_error.py FILE COMPILER...: compiles FILE and holds the compiler's messages against the file's first line.

`// expect-error: "regex"`  compiling must fail, and one line of the messages must match;
`// expect-success`         compiling must succeed.
"""
import os
import re
import subprocess
import sys

path, compiler = sys.argv[1], sys.argv[2:]
with open(path, encoding="utf-8") as file:
    first = file.readline().strip()
expected = re.fullmatch(r'// expect-error: "(.+)"', first)
if not expected and first != "// expect-success":
    sys.exit(f'{path}: the first line must be `// expect-error: "regex"` or `// expect-success`, not `{first}`')

result = subprocess.run([*compiler, path], capture_output=True, text=True, check=False,
                        env={**os.environ, "LC_ALL": "C"})
messages = result.stdout + result.stderr
if not expected:
    sys.exit(0 if result.returncode == 0 else f"{path}: must compile, but:\n{messages}")
if result.returncode == 0:
    sys.exit(f"{path}: compiles, although it must fail with /{expected[1]}/")
match = next((line for line in messages.splitlines() if re.search(expected[1], line)), None)
if match is None:
    sys.exit(f"{path}: fails, but no message matches /{expected[1]}/:\n{messages}")
print(match)
