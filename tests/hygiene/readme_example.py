#!/usr/bin/env python3
"""The example in README.md is the program examples/readme.cpp, which is compiled and run; and what README.md and
CONTRIBUTING.md name exists.

  readme_example.py ROOT          prints every difference; exits 1 if there is one
  readme_example.py --self-test   breaks a copy in every way that is checked; each must be noticed
"""
import re
import sys
import tempfile
from pathlib import Path

PATH = re.compile(r"`((?:include|lowrank|tests|examples|bench|cmake|deps|\.ci)/[\w./-]+)`")


def check(root: Path) -> list[str]:
    problems = []
    readme = (root / "README.md").read_text(encoding="utf-8")
    program = (root / "examples" / "readme.cpp").read_text(encoding="utf-8").strip()
    blocks = [block.strip() for block in re.findall(r"^```cpp\n(.*?)^```$", readme, re.S | re.M)]
    if program not in blocks:
        problems.append("README.md: no ```cpp block is identical to examples/readme.cpp")
    for name in ("README.md", "CONTRIBUTING.md"):
        for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1):
            for path in PATH.findall(line):
                if not (root / path).exists() and not (root / "include" / path).exists():
                    problems.append(f"{name}:{number}: {path} does not exist")
    return problems


def self_test() -> int:
    tree = {
        "README.md": "# A\n```cpp\nint main() {}\n```\nSee `lowrank/a.hpp` and `examples/readme.cpp`.\n",
        "CONTRIBUTING.md": "`examples/`\n",
        "examples/readme.cpp": "int main() {}\n",
        "include/lowrank/a.hpp": "",
    }
    changes = [
        ({}, None),
        ({"examples/readme.cpp": "int main() { return 1; }\n"}, "no ```cpp block"),
        ({"README.md": "nothing\n"}, "no ```cpp block"),
        ({"CONTRIBUTING.md": "see `tests/gone.py`\n"}, "CONTRIBUTING.md:1: tests/gone.py does not exist"),
    ]
    wrong = 0
    for change, expected in changes:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**tree, **change}.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            said = check(Path(folder))
        if bool(said) != bool(expected) or (expected and expected not in said[0]):
            print(f"{change}: expected {expected!r}, got {said}")
            wrong += 1
    print(f"{len(changes) - wrong} of {len(changes)} cases are judged rightly")
    return 1 if wrong else 0


def main() -> int:
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    problems = check(Path(sys.argv[1]))
    for line in problems:
        print(line)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
