#!/usr/bin/env python3
"""Every number that the README quotes: claim, threshold, measured value, pass or not, and the command that measures it.

  goals.py [AREA...]             the recorded values; exits 1 if one fails or was never measured
  goals.py --measure [AREA...]   runs the commands again (from the root of the repository) and records the values
  goals.py --validate            checks the rows only

The rows are bench/goals/<area>.json, the values bench/goals/recorded/<area>.json (written by --measure, never by hand):

  {"goals": [{
    "id":        "adamw-bandwidth",                         unique in its area
    "claim":     "a fused AdamW step takes at most ... ",   one line, for people
    "direction": "at most",                                 or "at least", or "equal to"
    "threshold": 1.15,
    "unit":      "x",                                       may be ""
    "tolerance": 0,                                         optional, for "equal to"
    "command":   "build/release/bench/... --benchmark_format=json",   run by bash; must print JSON, unless "file" is there
    "file":      "build/demo/report.json",                  optional: the JSON file that the command leaves
    "value":     "benchmarks[name=copy].real_time",         where the value is: keys joined by '.', [index], or
                                                            [key=value] for the one entry of a list that has it
    "divisor":   "benchmarks[name=triad].real_time"         optional: the value is divided by it
  }]}

Rows with the same command share one run of it. A [key=value] may hold dots and slashes in its value.
"""
import argparse
import datetime
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DIRECTIONS = {
    "at most": lambda value, row: value <= row["threshold"],
    "at least": lambda value, row: value >= row["threshold"],
    "equal to": lambda value, row: abs(value - row["threshold"]) <= row.get("tolerance", 0),
}
SYMBOLS = {"at most": "<=", "at least": ">=", "equal to": "=="}
REQUIRED = {"id": str, "claim": str, "direction": str, "threshold": (int, float), "unit": str, "command": str, "value": str}
OPTIONAL = {"tolerance": (int, float), "file": str, "divisor": str}
STEP = re.compile(r"\.?(?:\[([^=\]]+)=([^\]]*)\]|\[(-?\d+)\]|([^.\[\]]+))")


def lookup(document, path: str):
    """The value at `path`; raises ValueError that says where the path ends."""
    at, position = document, 0
    while position < len(path):
        match = STEP.match(path, position)
        if not match:
            raise ValueError(f"'{path}': cannot read '{path[position:]}'")
        key, wanted, number, name = match.groups()
        try:
            if key is not None:
                found = [entry for entry in at if str(entry[key]) == wanted]
                if len(found) != 1:
                    raise ValueError(f"'{path}': {len(found)} entries have {key}={wanted}")
                at = found[0]
            else:
                at = at[int(number) if number is not None else name]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"'{path}': nothing at '{path[:match.end()]}'") from None
        position = match.end()
    return at


def extract(document, row: dict) -> float:
    value = float(lookup(document, row["value"]))
    if "divisor" in row:
        value /= float(lookup(document, row["divisor"]))
    if not math.isfinite(value):
        raise ValueError(f"the value is {value}")
    return value


def areas(names: list[str]) -> dict[str, list[dict]]:
    files = {path.stem: path for path in sorted(HERE.glob("*.json"))}
    if unknown := [name for name in names if name not in files]:
        sys.exit(f"no such area: {', '.join(unknown)}; there are: {', '.join(files) or 'none'}")
    return {name: json.loads(path.read_text(encoding="utf-8"))["goals"] for name, path in files.items()
            if not names or name in names}


def problems(area: str, rows: list[dict]) -> list[str]:
    found, seen = [], set()
    for row in rows:
        where = f"{area}/{row.get('id', '?')}"
        for key, kind in REQUIRED.items():
            if not isinstance(row.get(key), kind):
                found.append(f"{where}: '{key}' is missing or of the wrong type")
        for key in row.keys() - REQUIRED.keys():
            if key not in OPTIONAL:
                found.append(f"{where}: unknown key '{key}'")
            elif not isinstance(row[key], OPTIONAL[key]):
                found.append(f"{where}: '{key}' is of the wrong type")
        if row.get("direction") not in DIRECTIONS:
            found.append(f"{where}: 'direction' must be one of {', '.join(DIRECTIONS)}")
        if row.get("id") in seen:
            found.append(f"{where}: two rows have this id")
        seen.add(row.get("id"))
    return found


def machine() -> str:
    cpu = "unknown CPU"
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
        cpu = match[1] if match else cpu
    except OSError:
        pass
    return f"{cpu}, {os.cpu_count()} cores"


def recorded_file(area: str) -> Path:
    return HERE / "recorded" / f"{area}.json"


def recorded(area: str) -> dict:
    path = recorded_file(area)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def measure(chosen: dict[str, list[dict]]) -> bool:
    runs: dict[tuple[str, str], object] = {}
    complete = True
    for area, rows in chosen.items():
        values = {key: value for key, value in recorded(area).items() if key in {row["id"] for row in rows}}
        for row in rows:
            key = (row["command"], row.get("file", ""))
            try:
                if key not in runs:
                    print(f"measuring {area}: {row['command']}", file=sys.stderr, flush=True)
                    try:
                        result = subprocess.run(["bash", "-c", row["command"]], cwd=ROOT, stdin=subprocess.DEVNULL,
                                                stdout=subprocess.PIPE, text=True, check=True)
                        output = (ROOT / row["file"]).read_text(encoding="utf-8") if "file" in row else result.stdout
                        runs[key] = json.loads(output)
                    except (subprocess.CalledProcessError, OSError, json.JSONDecodeError) as error:
                        runs[key] = error
                if isinstance(runs[key], Exception):
                    raise ValueError(str(runs[key]))
                value = extract(runs[key], row)
            except (ValueError, ZeroDivisionError) as error:
                print(f"{area}/{row['id']}: {error}", file=sys.stderr)
                complete = False
                continue
            values[row["id"]] = {"value": float(f"{value:.6g}"), "machine": machine(),
                                 "date": datetime.date.today().isoformat()}
        recorded_file(area).parent.mkdir(exist_ok=True)
        recorded_file(area).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return complete


def table(chosen: dict[str, list[dict]]) -> bool:
    counts = {"pass": 0, "FAIL": 0, "not measured": 0}
    for area, rows in chosen.items():
        values = recorded(area)
        print(f"\n{area}")
        for row in rows:
            value = values.get(row["id"])
            verdict = ("not measured" if value is None else
                       "pass" if DIRECTIONS[row["direction"]](value["value"], row) else "FAIL")
            counts[verdict] += 1
            unit = f" {row['unit']}" if row["unit"] else ""
            shown = "-" if value is None else f"{value['value']:.4g}{unit}"
            print(f"  {verdict:<12}  {shown:>14}  {SYMBOLS[row['direction']]} {row['threshold']:g}{unit}   {row['claim']}")
            print(f"  {'':<12}  {'':>14}  $ {row['command']}")
            if value is not None:
                print(f"  {'':<12}  {'':>14}  on {value['date']}, {value['machine']}")
    print(f"\n{counts['pass']} passed, {counts['FAIL']} failed, {counts['not measured']} not measured")
    return counts["FAIL"] == counts["not measured"] == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run goals", description=__doc__.splitlines()[0])
    parser.add_argument("area", nargs="*", help="only these areas")
    parser.add_argument("--measure", action="store_true", help="run the commands again and record the values")
    parser.add_argument("--validate", action="store_true", help="check the rows only")
    arguments = parser.parse_args()
    chosen = areas(arguments.area)
    if found := [line for area, rows in chosen.items() for line in problems(area, rows)]:
        print("\n".join(found))
        return 1
    if arguments.validate:
        print(f"{sum(map(len, chosen.values()))} goals in {len(chosen)} areas")
        return 0
    measured = measure(chosen) if arguments.measure else True
    return 0 if table(chosen) and measured else 1


sys.exit(main())
