#!/usr/bin/env python3
"""Checks the include law, the sizes and the names of include/lowrank.

  include_law.py ROOT          checks a source tree; prints every violation and the sizes
  include_law.py --self-test   plants one violation of each kind in a copy of a lawful tree; each must be noticed
"""
import re
import sys
import tempfile
from pathlib import Path

# A folder includes folders further left only; folders in one group do not include each other.
LAYERS = [
    ["core"],
    ["tile", "io"],
    ["linalg"],
    ["quant"],
    ["rule", "spectrum"],
    ["rank", "basis"],
    ["refresh", "transport"],
    ["residual", "lift", "factor"],
    ["optim"],
    ["compress", "adapt", "deep"],
    ["interop"],
]
LEVEL = {folder: level for level, group in enumerate(LAYERS) for folder in group}

DECOMPOSITIONS = {"SVD", "QR", "LU", "Cholesky", "Eigenvalues", "Dense", "Eigen"}
CUDA_INCLUDE = re.compile(r"^(cuda|cublas|cusolver|curand|cusparse|cooperative_groups|nvtx|cub/|thrust/|mma\.h|.*\.cuh$)")
FORBIDDEN_FILES = re.compile(r"(^|_)(utils?|commons?|helpers?|misc|impl)(_|$)")
FORBIDDEN_TEXT = [
    (re.compile(r"(?<![:.>\w])get_\w+\s*\("), "a function called get_*: name what it returns"),
    (re.compile(r"^\s*using\s+namespace\b(?!.*_literals)"), "using namespace in a header"),
    (re.compile(r"\bnamespace\s*\{"), "an unnamed namespace in a header"),
    (re.compile(r"\bstd::(cout|cerr)\b"), "printing from the library"),
    (re.compile(r"[(,]\s*bool\s+(?!holds\b)\w+\s*(=\s*(true|false)\s*)?[,)]"), "a bool parameter: use an enumeration or a policy"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
MEDIAN, NINETIETH, LONGEST = 150, 300, 400
UMBRELLA = "lowrank.hpp"


def without_comments(text: str) -> str:
    """The same lines, with comments and the contents of string literals removed."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)

    def blank(match: re.Match) -> str:
        found = match[0]
        return '""' if found.startswith('"') else "\n" * found.count("\n")

    return pattern.sub(blank, text)


def includes_of(text: str) -> list[tuple[int, str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := INCLUDE.match(line):
            found.append((number, match[1], match[2]))
    return found


def reachable(start: str, edges: dict[str, list[str]]) -> dict[str, str]:
    """Everything `start` includes, directly or not, and who includes it."""
    parents, todo = {}, [start]
    while todo:
        at = todo.pop()
        for to in edges.get(at, []):
            if to not in parents:
                parents[to] = at
                todo.append(to)
    return parents


def is_decomposition(include: str) -> bool:
    return include.startswith("Eigen/") and include[6:] in DECOMPOSITIONS


def check(root: Path) -> tuple[list[str], list[int]]:
    base = root / "include" / "lowrank"
    problems: list[str] = []
    sizes: list[int] = []
    edges: dict[str, list[str]] = {}
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        name = path.relative_to(base).as_posix()
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n") + (not text.endswith("\n"))
        code = without_comments(text)
        parts = name.split("/")
        folder = parts[0] if len(parts) > 1 else ""

        def problem(what: str, line: int = 0) -> None:
            problems.append(f"include/lowrank/{name}{f':{line}' if line else ''}: {what}")

        if path.suffix not in (".hpp", ".cuh"):
            problem("only .hpp and .cuh live here")
            continue
        sizes.append(lines)
        if lines > LONGEST:
            problem(f"{lines} lines, {LONGEST} are allowed")
        if folder and folder not in LEVEL:
            problem(f"the include law does not know the folder {folder}")
        for part in parts:
            if FORBIDDEN_FILES.search(part.split(".")[0]):
                problem(f"'{part}' says nothing about what is inside")
        if not re.search(r"^#pragma once$", text, re.M):
            problem("no #pragma once")
        for number, line in enumerate(code.splitlines(), 1):
            if "__CUDACC__" in line and name != "core/config.hpp":
                problem("__CUDACC__ belongs in core/config.hpp", number)
            for pattern, what in FORBIDDEN_TEXT:
                if pattern.search(line):
                    problem(what, number)

        edges[name] = []
        for number, bracket, include in includes_of(text):
            if not include.startswith("lowrank/"):
                edges[name].append(include)
                if bracket == '"':
                    problem(f'"{include}": our headers are included as "lowrank/...", others with <>', number)
                if path.suffix == ".hpp" and CUDA_INCLUDE.search(include):
                    problem(f"a .hpp includes {include}", number)
                if path.suffix == ".cuh" and include.startswith("Eigen/"):
                    problem(f"a .cuh includes {include}", number)
                in_place = name.startswith("linalg/host/") and ("decomposition" in parts[-1] or "detail" in parts[2:-1])
                if is_decomposition(include) and not in_place:
                    problem(f"{include} takes seconds to compile: linalg/host/*decomposition* or its detail only", number)
                if include.startswith("nlohmann/") and folder not in ("io", "interop"):
                    problem(f"{include} belongs to lowrank::io", number)
                continue
            target = include.removeprefix("lowrank/")
            edges[name].append(target)
            to = target.split("/")[0] if "/" in target else ""
            if not (base / target).is_file():
                problem(f"{include} does not exist", number)
            if path.suffix == ".hpp" and target.endswith(".cuh"):
                problem(f"a .hpp includes {include}", number)
            if not folder:
                continue  # umbrellas include what they like
            if not to and target != "version.hpp":
                problem(f"includes the umbrella {include}", number)
            if to in LEVEL and folder in LEVEL and to != folder and LEVEL[to] >= LEVEL[folder]:
                kind = "a sibling" if LEVEL[to] == LEVEL[folder] else "further right"
                problem(f"{folder} includes {include}, which is {kind}", number)
            if "detail" in target.split("/")[:-1] and to != folder:
                problem(f"{include} is a detail of {to}", number)
            backend = re.match(r"linalg/(host|cuda)/", target)
            if backend and not name.startswith(backend[0]) and folder != "interop":
                problem(f"{include}: algorithms include linalg/primitives.hpp, never a backend", number)

    for start in [n for n in edges if n == UMBRELLA]:
        for to, parent in reachable(start, edges).items():
            if is_decomposition(to) or to.startswith("nlohmann/"):
                problems.append(f"include/lowrank/{start}: reaches <{to}> through {parent}")
    for start in [n for n in edges if n.endswith(".cuh")]:
        for to, parent in reachable(start, edges).items():
            if to.startswith("Eigen/"):
                problems.append(f"include/lowrank/{start}: reaches <{to}> through {parent}")

    # Users never include details, so what shows them how must not either.
    for folder in ("examples", "bench"):
        for path in sorted((root / folder).rglob("*.[ch]pp")):
            for number, _, include in includes_of(path.read_text(encoding="utf-8")):
                if include.startswith("lowrank/") and "/detail/" in include:
                    problems.append(f"{path.relative_to(root)}:{number}: includes the detail {include}")

    if sizes:
        median, ninetieth = quantile(sizes, 0.5), quantile(sizes, 0.9)
        if median > MEDIAN:
            problems.append(f"the median header has {median} lines, {MEDIAN} are allowed")
        if ninetieth > NINETIETH:
            problems.append(f"one header in ten has more than {ninetieth} lines, {NINETIETH} are allowed")
    return problems, sizes


def quantile(sizes: list[int], fraction: float) -> int:
    """The smallest size that at least this fraction of all headers does not exceed."""
    ordered = sorted(sizes)
    return ordered[max(0, -(-int(fraction * 1000) * len(ordered) // 1000) - 1)]


LAWFUL = {
    "core/config.hpp": "#if defined(__CUDACC__)\n#endif\n",
    "core/view.hpp": '#include "lowrank/core/config.hpp"\n#include <span>\n// get_name(x) in a comment is fine\n',
    "core/detail/pool.hpp": "#include <thread>\n",
    "linalg/primitives.hpp": '#include "lowrank/core/view.hpp"\n',
    "linalg/host/products.hpp": '#include "lowrank/linalg/primitives.hpp"\n#include <Eigen/Core>\n',
    "linalg/host/decompositions.hpp": "#include <Eigen/SVD>\n",
    "rule/adam.hpp": '#include "lowrank/core/view.hpp"\n',
    "spectrum/tail.hpp": '#include "lowrank/core/view.hpp"\n',
    "io/file.hpp": "#include <nlohmann/json.hpp>\n",
    "lowrank.hpp": '#include "lowrank/linalg/host/products.hpp"\n#include "lowrank/rule/adam.hpp"\n',
}
PLANTED = [  # (file, lines added to it, what must be said)
    ("core/view.hpp", '#include "lowrank/rule/adam.hpp"', "further right"),
    ("rule/adam.hpp", '#include "lowrank/spectrum/tail.hpp"', "a sibling"),
    ("rule/adam.hpp", '#include "lowrank/lowrank.hpp"', "includes the umbrella"),
    ("rule/adam.hpp", '#include "lowrank/nowhere.hpp"', "does not exist"),
    ("rule/adam.hpp", '#include "lowrank/core/detail/pool.hpp"', "is a detail of core"),
    ("rule/adam.hpp", '#include "lowrank/linalg/host/products.hpp"', "never a backend"),
    ("rule/adam.hpp", '#include "adam.hpp"', "our headers are included as"),
    ("rule/adam.hpp", "#include <cuda_runtime.h>", "a .hpp includes cuda_runtime.h"),
    ("rule/adam.hpp", "#include <Eigen/QR>", "takes seconds to compile"),
    ("rule/adam.hpp", "#include <nlohmann/json.hpp>", "belongs to lowrank::io"),
    ("rule/adam.hpp", "#ifdef __CUDACC__\n#endif", "__CUDACC__ belongs in"),
    ("rule/adam.hpp", "int get_moment(int);", "get_*"),
    ("rule/adam.hpp", "void step(int x, bool nesterov = false);", "a bool parameter"),
    ("rule/adam.hpp", "using namespace std;", "using namespace"),
    ("rule/adam.hpp", "namespace { int x; }", "unnamed namespace"),
    ("rule/adam.hpp", "void f() { std::cout << 1; }", "printing"),
    ("rule/adam.hpp", "\n" * 400, "400 are allowed"),
    ("rule/adam_utils.hpp", "int x;", "says nothing"),
    ("odd/adam.hpp", "int x;", "does not know the folder"),
    ("linalg/cuda/products.cuh", "#include <Eigen/Core>", "a .cuh includes Eigen/Core"),
    ("linalg/cuda/products.cuh", '#include "lowrank/linalg/host/products.hpp"', "reaches <Eigen/Core>"),
    ("lowrank.hpp", '#include "lowrank/linalg/host/decompositions.hpp"', "reaches <Eigen/SVD>"),
    ("lowrank.hpp", '#include "lowrank/io/file.hpp"', "reaches <nlohmann/json.hpp>"),
]


def self_test() -> int:
    missed = []

    def said(changes: dict[str, str], prefix: str = "#pragma once\n") -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**LAWFUL, **changes}.items():
                path = Path(folder) / "include" / "lowrank" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(prefix + text, encoding="utf-8")
            return check(Path(folder))[0]

    if problems := said({}):
        missed.append(f"the lawful tree is refused: {problems}")
    for name, text, expected in PLANTED:
        if not any(expected in line for line in said({name: LAWFUL.get(name, "") + text + "\n"})):
            missed.append(f"not noticed in {name}: {text.strip()!r} ({expected})")
    if not any("no #pragma once" in line for line in said({}, prefix="")):
        missed.append("a missing #pragma once is not noticed")
    long_tree = {f"core/long_{i}.hpp": "\n" * 310 for i in range(20)}
    for start in ("the median", "one header in ten"):
        if not any(line.startswith(start) for line in said(long_tree)):
            missed.append(f"a tree of long headers does not say '{start} ...'")
    for line in missed:
        print(line)
    print(f"{len(PLANTED) + 4 - len(missed)} of {len(PLANTED) + 4} planted cases are judged rightly")
    return 1 if missed else 0


def main() -> int:
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    problems, sizes = check(Path(sys.argv[1]))
    for line in problems:
        print(line)
    if sizes:
        print(f"{len(sizes)} headers: median {quantile(sizes, 0.5)} lines (<= {MEDIAN}), nine in ten at most "
              f"{quantile(sizes, 0.9)} (<= {NINETIETH}), longest {max(sizes)} (<= {LONGEST}); {len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
