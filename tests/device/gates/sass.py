"""Reads SASS as cuobjdump prints it: names, instructions, loops, and how many instructions a turn of the main loop takes."""
import re
from dataclasses import dataclass, field
from functools import cached_property

LINE = re.compile(r"^\s+/\*([0-9a-f]{4,6})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);")
GLOBAL = re.compile(r"^(LDG|STG|LD|ST)\.")
LOCAL = re.compile(r"^(LDL|STL)\b")
LAST_ADDRESS = re.compile(r"0x([0-9a-f]+)\s*$")
WIDTHS = (("ENL2.256", 32), ("256", 32), ("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1))
LEAST_WORK = 8  # instructions of a way that does not just skip the work


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    name: str
    operands: str

    @property
    def kind(self) -> str:
        return self.name.split(".")[0]

    @property
    def target(self) -> int:
        return int(LAST_ADDRESS.search(self.operands)[1], 16)

    @property
    def conditional(self) -> bool:
        return bool(self.predicate) or "," in self.operands

    def access(self) -> tuple[str, int] | None:
        """What it moves between a lane and global memory: ("load" or "store", bytes)."""
        if not GLOBAL.match(self.name):
            return None
        parts = self.name.split(".")
        found = next((size for text, size in WIDTHS if text.split(".")[-1] in parts), 4)
        return ("load" if self.kind in ("LDG", "LD") else "store"), found


@dataclass
class Block:
    """Instructions that follow each other without a jump in or out."""

    instructions: list[Instruction]
    next: list[int] = field(default_factory=list)
    calls: bool = False


class Kernel:
    def __init__(self, instructions: list[Instruction]):
        self.instructions = instructions

    @property
    def local_accesses(self) -> int:
        return sum(bool(LOCAL.match(one.name)) for one in self.instructions)

    def accesses(self, what: str, width: int) -> int:
        return sum(one.access() == (what, width) for one in self.instructions)

    @cached_property
    def blocks(self) -> dict[int, Block]:
        """By address. A call returns to where it was made; divergent forms of shuffles, which no full warp takes, are left out."""
        code = [one for one in self.instructions]
        while code and (code[-1].kind == "NOP" or (code[-1].kind == "BRA" and code[-1].target == code[-1].address)):
            code.pop()
        joins, meets = {}, {}
        for one in code:  # where a BSYNC goes on is what its BSSY said
            if one.kind == "BSSY":
                meets[one.operands.split(",")[0]] = one.target
            elif one.kind == "BSYNC":
                joins[one.address] = meets.get(one.operands.strip())
        starts = {code[0].address} | {target for target in joins.values() if target is not None}
        for one, after in zip(code, code[1:] + [None]):
            if one.kind == "BRA" and not one.name.startswith("BRA.DIV"):
                starts.add(one.target)
            if one.kind in ("BRA", "EXIT", "RET", "BSYNC", "CALL") and after is not None:
                starts.add(after.address)
        blocks: dict[int, Block] = {}
        for one in code:
            if one.address in starts:
                blocks[one.address] = current = Block([])
            current.instructions.append(one)
        order = sorted(blocks)
        for here, after in zip(order, order[1:] + [None]):
            block = blocks[here]
            last = block.instructions[-1]
            block.calls = any(one.kind == "CALL" for one in block.instructions)
            follows = [after] if after is not None else []
            if last.kind == "BRA" and not last.name.startswith("BRA.DIV"):
                block.next = [last.target] + (follows if last.conditional else [])
            elif last.kind in ("EXIT", "RET"):
                block.next = follows if last.predicate else []
            elif last.kind == "BSYNC" and joins[last.address] is not None:
                block.next = [joins[last.address]] + (follows if last.predicate else [])
            else:
                block.next = follows
            block.next = [one for one in dict.fromkeys(block.next) if one in blocks]
        return blocks

    @cached_property
    def main_loop(self) -> tuple[int, frozenset[int]]:
        """First block and all blocks of the largest loop, or of the whole kernel where there is none."""
        before: dict[int, list[int]] = {here: [] for here in self.blocks}
        for here, block in self.blocks.items():
            for there in block.next:
                before[there].append(here)
        loops: dict[int, set[int]] = {}
        for here, block in self.blocks.items():
            for head in block.next:
                if head > here:
                    continue
                inside, open_ = {head}, [here]
                while open_:
                    one = open_.pop()
                    if one not in inside:
                        inside.add(one)
                        open_ += before[one]
                # Jumps back that do not close a loop reach the beginning of the kernel.
                if head == min(inside):
                    loops.setdefault(head, set()).update(inside)
        if not loops:
            return min(self.blocks), frozenset(self.blocks)
        size = {head: sum(len(self.blocks[one].instructions) for one in inside) for head, inside in loops.items()}
        head = max(size, key=size.get)
        return head, frozenset(loops[head])

    @cached_property
    def turn(self) -> int:
        """Instructions of one turn of the main loop: its longest way, where wide accesses are taken rather than the narrow
        ones that serve ragged ends, and no way through a subroutine is taken that has another way beside it. Inner loops
        count once."""
        head, inside = self.main_loop
        order: list[int] = []
        seen: set[int] = set()
        stack = [(head, iter(self.onward(head, head, inside)))]
        seen.add(head)
        closing: set[tuple[int, int]] = set()
        open_ = {head}
        while stack:
            here, rest = stack[-1]
            for there in rest:
                if there in open_:
                    closing.add((here, there))
                elif there not in seen:
                    seen.add(there)
                    open_.add(there)
                    stack.append((there, iter(self.onward(there, head, inside))))
                    break
            else:
                stack.pop()
                open_.discard(here)
                order.append(here)  # successors first
        onward = {
            here: [one for one in self.onward(here, head, inside) if (here, one) not in closing] for here in order
        }
        # Nearest block that every way onward passes; 0 stands for the end of the turn.
        passes: dict[int, frozenset[int]] = {}
        for here in order:
            common = [passes[one] for one in onward[here]]
            passes[here] = (frozenset.intersection(*common) if common else frozenset((-1,))) | {here}
        place = {here: number for number, here in enumerate(order)}
        place[-1] = -1
        length: dict[int, int] = {}
        for here in order:
            ways = onward[here]
            if len(ways) == 2:
                meet = max((passes[here] - {here}) or {-1}, key=lambda one: place[one])
                ways = self.usual(ways, meet, onward)
            length[here] = len(self.blocks[here].instructions) + max((length[one] for one in ways), default=0)
        return length[head]

    def onward(self, here: int, head: int, inside: frozenset[int]) -> list[int]:
        return [one for one in self.blocks[here].next if one in inside and one != head]

    def usual(self, ways: list[int], meet: int, onward: dict[int, list[int]]) -> list[int]:
        """Those of two ways that a full and aligned tile may take. Where both compute, and neither just skips the work, the
        longer one is for the rare numbers that the other one does not serve."""
        calls, moved, work = [], [], []
        for way in ways:
            region, open_ = set(), [way]
            while open_:
                one = open_.pop()
                if one != meet and one not in region:
                    region.add(one)
                    open_ += onward[one]
            calls.append(self.must_call(way, meet, onward))
            found = [one.access() for block in region for one in self.blocks[block].instructions if one.access()]
            total = {what: sum(size for kind, size in found if kind == what) for what in ("load", "store")}
            moved.append((total, len(found)))
            work.append(sum(len(self.blocks[one].instructions) for one in region))
        if calls[0] != calls[1]:
            return [ways[calls.index(False)]]
        if moved[0][0] == moved[1][0] and moved[0][1] != moved[1][1]:
            return [ways[0] if moved[0][1] < moved[1][1] else ways[1]]
        if moved[0][1] == moved[1][1] == 0 and min(work) >= LEAST_WORK:
            return [ways[0] if work[0] < work[1] else ways[1]]
        return ways

    def must_call(self, way: int, meet: int, onward: dict[int, list[int]]) -> bool:
        """Whether every way from there to `meet` calls a subroutine."""
        seen, open_ = set(), [way]
        while open_:
            one = open_.pop()
            if one == meet or (not onward.get(one) and not self.blocks[one].calls):
                return False
            if one not in seen and not self.blocks[one].calls:
                seen.add(one)
                open_ += onward[one]
        return True


def kernels(text: str) -> dict[str, Kernel]:
    """All kernels of a listing, by mangled name."""
    found: dict[str, list[Instruction]] = {}
    current = None
    for line in text.splitlines():
        if "Function :" in line:
            current = found.setdefault(line.split()[-1], [])
        elif current is not None and (match := LINE.match(line)):
            current.append(Instruction(int(match[1], 16), match[2] or "", match[3], match[4].strip()))
    return {name: Kernel(code) for name, code in found.items() if code}


def closing(text: str, begin: int) -> int:
    """Where the bracket that opens at `begin` is closed."""
    depth = 0
    for at in range(begin, len(text)):
        if text[at] in "<({[":
            depth += 1
        elif text[at] in ">)}]":
            depth -= 1
            if depth == 0:
                return at
    raise ValueError(f"unbalanced: {text}")


def split(text: str) -> list[str]:
    parts, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "<({[") - (letter in ">)}]")
        if letter == "," and depth == 0:
            parts.append(text[begin:at].strip())
            begin = at + 1
    return parts + ([text[begin:].strip()] if text[begin:].strip() else [])


def short_type(text: str) -> str:
    """A type as the table names it: no namespaces, no executors; a lambda by the function that it was written in."""
    number = ""
    lambda_at = text.rfind("::{lambda(")
    if lambda_at >= 0 and closing(text, lambda_at + 2) == len(text) - 1:
        count = text[:-1].rsplit("#", 1)[1]
        number = "" if count == "1" else f"#{count}"
        text = text[:lambda_at].removesuffix(" const").rstrip()
        begin = max(at for at in range(len(text)) if text[at] == "(" and closing(text, at) == len(text) - 1)
        text = text[:begin]
    out, at = "", 0
    while at < len(text):
        if text[at] == "<":
            end = closing(text, at)
            kept = [short_type(part) for part in split(text[at + 1 : end])]
            kept = [part for part in kept if part not in ("cuda_executor", "device_space")]
            out += f"<{', '.join(kept)}>" if kept else ""
            at = end + 1
        elif text[at] == "(":
            at = closing(text, at) + 1  # of an enumerator's type, or of parameters
        else:
            out += text[at]
            at += 1
    out = re.sub(r"std::array<(.*)::handle, \d+ul>", r"\1", out)
    out = re.sub(r"\b(lowrank|detail|rule|codec|moments|format|basis)::", "", out).replace(" const", "")
    return out.strip() + number


def short_name(demangled: str) -> str:
    """run_tiles<256, elementwise<adam_formula, fp32_moment>::apply>."""
    if demangled.startswith("_Z"):  # too much for c++filt: the names in it, up to the first executor, and the lambda's number
        parts, at = [], 0
        while parts[-1:] != ["cuda_executor"] and (found := re.compile(r"S[0-9A-Z]*_|(\d+)|.").match(demangled, at)):
            at = found.end() + int(found[1] or 0)
            parts += [demangled[found.end() : at]] if found[1] else []
        parts = [one for one in parts if one not in ("lowrank", "detail", "rule", "transport", "cuda_executor")]
        number = re.findall(r"E(\d*)_E", demangled)[-1]
        return f"{parts[0]}<{'::'.join(parts[1:])}{f'#{int(number) + 2}' if number else ''}>"
    text = demangled.removeprefix("void ")
    begin = next((at for at in range(len(text)) if text[at] in "<("), len(text))
    if begin < len(text) and text[begin] == "<":
        begin = closing(text, begin) + 1
    return short_type(text[:begin])
