"""Collectives of a compiled program, counted in its text: how often they run in a step and what they move."""

import math
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
_LIMIT = re.compile(r"= s\d+\[\](?:\{[^}]*\})? constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")


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

    seen: set[tuple[str, str, str]] = set()

    def visit(name: str, times: int, loop: str) -> None:
        for line in computations.get(name, ()):
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            result, opcode, rest = match.groups()
            kind = opcode.removesuffix("-start")
            if kind in _KINDS:
                group = _group_size(rest, num_devices)
                # A TPU's compiler writes a collective into every computation that it overlaps with; what
                # jax.shard_map writes out is all on one channel.
                channel = _CHANNEL.search(rest)
                shapes = " ".join(match[0] for match in _SHAPE.finditer(result))
                place = (loop, kind, f"{channel[1]} {shapes}" if channel else line)
                if group > 1 and place not in seen:
                    seen.add(place)
                    runs[kind, group] += times
                    moved[kind, group] += times * _sent(
                        kind, _result_bytes(kind, result, opcode != kind), group
                    )
                continue
            called = dict(_CALLED.findall(rest))
            if opcode == "while":
                trips = _count_trips(rest, computations.get(called.get("condition", ""), ()))
                visit(called["body"], times * trips, called["body"])
                continue
            if opcode != "call":
                called.pop("to_apply", None)  # what a reduction does to two numbers
            branches = [
                name.strip().lstrip("%") for names in _BRANCHES.findall(rest) for name in names.split(",")
            ]
            for inner in (*called.values(), *branches):
                visit(inner, times, loop)

    visit(entry, 1, entry)
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


def _count_trips(rest: str, condition: Iterable[str]) -> int:
    """How often a loop runs: as the compiler says, or else the constant that its counter is compared with."""
    if known := _TRIPS.search(rest):
        return int(known[1])
    limits = [int(match[1]) for line in condition if (match := _LIMIT.search(line))]
    return max(limits, default=1)


def _sizes(result: str) -> Iterable[int]:
    for kind, dimensions in _SHAPE.findall(result):
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind) or (int(digits[0]) if digits else 0)
        for size in filter(None, dimensions.split(",")):
            bits *= int(size)
        yield bits // 8


def _result_bytes(kind: str, result: str, is_start: bool) -> int:
    """Bytes of a collective's results; an asynchronous start returns its operands in front of them."""
    sizes = list(_sizes(re.sub(r"\{[^{}]*\}", "", result)))
    if not is_start or kind == "all-reduce":
        return sum(sizes)
    if kind == "collective-permute":
        return sizes[0]
    half = len(sizes) // 2
    return sum(sizes[half : 2 * half])


def _group_size(rest: str, num_devices: int) -> int:
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", match[2]))
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
