"""Collectives of a compiled program, counted in its text: how often they run in a step and what they move."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "token": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?[\w.\-]+ = (.*?[\])}]) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')


@dataclass(frozen=True)
class Collective:
    """One kind of collective over groups of one size.

    Attributes:
        kind: such as ``all-gather``.
        group: devices that take part together.
        runs: how often it runs in a step, loops counted.
        bytes: what a device sends in a step, by the best ring algorithm.
    """

    kind: str
    group: int
    runs: int
    bytes: float


def count_collectives(text: str, num_devices: int) -> list[Collective]:
    """Returns the collectives of a compiled program's text, the heaviest first."""
    computations, entry = _split(text)
    runs: dict[tuple[str, int], int] = defaultdict(int)
    moved: dict[tuple[str, int], float] = defaultdict(float)

    def visit(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            result, opcode, rest = match.groups()
            kind = opcode.removesuffix("-start")
            if kind in _KINDS and not (opcode == kind and "_async_done" in rest):
                group = _group_size(rest, num_devices)
                if group > 1:
                    runs[kind, group] += times
                    moved[kind, group] += times * _sent(kind, _largest(result, opcode != kind), group)
                continue
            trips = _TRIPS.search(rest) if opcode == "while" else None
            for role, called in _CALLED.findall(rest):
                if role != "to_apply" or opcode == "call":
                    visit(called, times * int(trips[1]) if trips and role == "body" else times)
            for branches in _BRANCHES.findall(rest):
                for called in branches.split(","):
                    visit(called.strip().lstrip("%"), times)

    visit(entry, 1)
    found = [Collective(kind, group, runs[kind, group], moved[kind, group]) for kind, group in runs]
    return sorted(found, key=lambda collective: -collective.bytes)


def _split(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of every computation, and the name of the first one to run."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if not line.startswith(" ") and (match := _COMPUTATION.match(line)):
            lines = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        else:
            lines.append(line.strip())
    return computations, entry


def _sizes(result: str) -> Iterable[int]:
    for kind, dimensions in _SHAPE.findall(result):
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind) or (int(digits[0]) if digits else 0)
        for size in filter(None, dimensions.split(",")):
            bits *= int(size)
        yield bits // 8


def _largest(result: str, is_start: bool) -> int:
    """Bytes of a result; an asynchronous start returns operands and results, the larger ones count."""
    sizes = list(_sizes(re.sub(r"\{[^{}]*\}", "", result)))
    if not is_start or len(sizes) < 2:
        return sum(sizes)
    half = len(sizes) // 2
    return max(sum(sizes[:half]), sum(sizes[half : 2 * half]))


def _group_size(rest: str, num_devices: int) -> int:
    if match := re.search(r"replica_groups=\[[\d,]*?(\d+)\]<=", rest):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"source_target_pairs=\{(\{.*?\})\}", rest):
        return 2 if re.search(r"\{(\d+),(?!\1\})\d+\}", match[1]) else 1
    return num_devices


def _sent(kind: str, size: int, group: int) -> float:
    """Bytes a device sends. ``size``: of the result; a reduce-scatter's is a part of what it reduces."""
    share = (group - 1) / group
    if kind == "all-reduce":
        return 2 * size * share
    if kind == "reduce-scatter":
        return size * (group - 1)
    if kind in ("collective-permute", "collective-broadcast"):
        return float(size)
    return size * share
