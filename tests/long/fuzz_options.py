"""Types absurd values for every option of the configs and every argument of the commands, and counts what happens.

    python tests/long/fuzz_options.py [--count=500] [--seed=0]

Builds the smallest toy world, then calls ``main`` in this process with one absurd value at a time, in ways that are
cheap: ``grid --dry_run`` for the options of a config, small commands for arguments of their own. Prints every
traceback, every hang (a call that took more than a minute) and every value that was accepted; ends with 1 if there
was a traceback or a hang.
"""

import argparse
import contextlib
import io
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stilts_jax.config import base_config
from stilts_jax.main import main
from stilts_jax.toy.world import write_tasks, write_texts

LIMIT = 60  # seconds
VALUES = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1",
        "2",
        "-0.0",
        "0.5",
        "1e-320",
        "1e300",
        "-1e300",
        "nan",
        "inf",
        "-inf",
        "1e400",
    ),
    *(str(2**31), str(2**63), "-" + str(2**64), "9" * 5000, "1_000", "0x10", "١٢", "1,5", "true", "None"),
    *(
        "\0",
        "a\0b",
        "\udcff",
        "é中\u202e",
        "\n",
        "a\tb",
        "x" * 5000,
        "/" + "x" * 300,
        "a=b,c",
        "=",
        ",",
        "+",
        "++",
    ),
    *(
        "none",
        "mnli",
        "xnli@",
        "@de",
        "xnli@xx",
        ".x:y",
        "x.y:",
        "os:path",
        ":",
        "hub:",
        "hub:/no/such",
        "mnli//mlm",
    ),
    *(
        "/proc/nope",
        "/dev/null",
        "/dev/null/x",
        ".",
        "..",
        "~nobody/x",
        "memory://x",
        "file:///tmp/x",
        "gs://",
        "://",
    ),
    *(
        "--",
        "-h",
        "--config",
        "[1]",
        "{}",
        "'",
        '"',
        "$(true)",
        "%s",
        "{0}",
        "en",
        "de+en",
        "de,en",
        "xx",
        "float32",
    ),
)
# Command lines that end soon whatever the value; the argument that is varied stands at the end.
COMMANDS = """
tasks --data_root
tasks --source
tasks
prepare --no_download --data_root
demo --workdir=/dev/null --seeds
score --gold={data} --predictions
score --predictions={data} --gold
score --gold={data} --predictions={data} --out
score --gold={data} --predictions={data} --benchmark
report
report {root}/none --out
report {root}/none --benchmark
report {root}/none --distances
export
export {root}/none --out
export {root}/none --out={root}/e --head
eval {root}/none --data_root={data} --out={root}/o --task
eval {root}/none --data_root={data} --task=xnli --out
eval {root}/none --out={root}/o --task=xnli --data_root
mine --encoder={encoder} --source={text} --target={text} --out
mine --encoder={encoder} --target={text} --out={root}/m --source
mine --source={text} --target={text} --out={root}/m --encoder
mine --encoder={root} --source={text} --target={text} --out={root}/m --neighbours
mine --encoder={root} --source={text} --target={text} --out={root}/m --threshold
mine --encoder={root} --source={text} --target={text} --out={root}/m --tokens_per_batch
mine --encoder={root} --source={text} --target={text} --out={root}/m --max_length
mine --encoder={root} --source={text} --target={text} --out={root}/m --layer
bench --shape=none --rows
bench --shape=none --rounds
bench --shape=none --batch_size
bench --shape=none --max_length
bench --shape=tiny --lengths
plan --topology
plan --topology=cpu:1 --encoder
plan --topology=none:1 --rows
plan --topology=none:1 --length
plan --topology=none:1 --task
plan --topology=none:1 --data_root
plan --topology=none:1 --config
grid --dry_run --data_root={data} --workdir={root}/w --config
grid --dry_run --config=toy --workdir={root}/w --data_root
grid --dry_run --config=toy --data_root={data} --workdir
grid --dry_run --config=toy --data_root={data} --workdir={root}/w --part
train --config=toy:size=none --data_root={data} --workdir={root}/w --trace
"""


class TookTooLong(BaseException):
    """Nothing in a command catches this."""


def stop(number, frame):
    raise TookTooLong


def options() -> list[str]:
    """Returns the names of all options of a config."""
    config = base_config()
    return [
        f"{group}.{name}" if hasattr(config[group], "keys") else group
        for group in config
        for name in (config[group] if hasattr(config[group], "keys") else [group])
    ]


def draw(random_: random.Random, places: dict[str, str]) -> list[str]:
    """Returns a command line with one absurd value."""
    value = random_.choice(VALUES)
    if random_.random() < 0.65:
        name = random_.choice(options())
        grid = "grid --dry_run --config=toy:size=test --data_root={data} --workdir={root}/w --config.encoder={encoder}"
        return [*grid.format(**places).split(), f"--config.{name}={value}"]
    *words, name = random_.choice(COMMANDS.strip().splitlines()).format(**places).split()
    return [
        *words,
        f"{name}={value}" if name.startswith("--") else name,
        *([] if name.startswith("--") else [value]),
    ]


def call(line: list[str]) -> tuple[str, str]:
    """Returns what happened (refused, accepted, traceback or hang) and what was printed."""
    heard = io.StringIO()
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(heard):
            code = main(line)
    except SystemExit as error:
        code = error.code
    except TookTooLong:
        return "hang", heard.getvalue()
    except BaseException as error:
        return "traceback", f"{heard.getvalue()}\n{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if "Traceback" in heard.getvalue():
        return "traceback", heard.getvalue()
    return ("refused" if code else "accepted"), heard.getvalue()


def run(count: int, seed: int) -> int:
    """Runs the fuzz; returns the exit code."""
    signal.signal(signal.SIGALRM, stop)
    found: Counter[str] = Counter()
    began, random_ = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for write in (write_texts, write_tasks):
            write(Path("world"), size="test")
        root = Path(folder)
        (root / "text").write_text("one\ntwo\n")
        places = {
            "root": folder,
            "data": f"{root}/world/data",
            "encoder": f"{root}/world/encoder",
            "text": f"{root}/text",
        }
        for number in range(count):
            line = draw(random_, places)
            kind, said = call(line)
            found[kind] += 1
            if kind != "refused":
                print(f"{number} {kind}: {' '.join(line)[-200:]!a}", flush=True)
            if kind in ("traceback", "hang"):
                print(said[-1500:], flush=True)
    print(f"seed {seed}: {count} values in {time.monotonic() - began:.0f} s: {dict(found)}")
    return 1 if found["traceback"] or found["hang"] else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(run(arguments.count, arguments.seed))
