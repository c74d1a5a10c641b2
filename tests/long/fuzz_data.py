"""Reads thousands of mutated data files, equally many of every kind, and builds features of what is accepted.

Every mutated file must be refused with its name, or give the examples that it gave before, or others that are listed
here to be judged. A traceback is anything that is no ``DataError``.

    python tests/long/fuzz_data.py --count 5000 --seed 0
"""

import argparse
import collections
import json
import random
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import sentencepiece

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import seed_files  # lies there

from stilts_jax.errors import DataError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    read_counted,
    read_retrieval,
    with_labels,
)
from stilts_jax.tokenization import load_tokenizer
from stilts_jax.toy.world import write_tasks, write_texts

SECONDS = 20  # what takes longer hangs
ROWS = 30  # of a file of the toy world
WRONG = (None, 7, 7.5, True, "", "x", "\ud83d", "a\0b", [], [None], {}, {"a": [1]}, float("nan"), -1, 10**30)
LABELS = ("label", "gold_label", "correct", "answerKey", "answers", "tags", "entity_id", "answer")


def cut(text, draw, path):
    return text[: draw.randrange(len(text))]


def flip(text, draw, path):
    content = bytearray(text.encode())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def zeros(text, draw, path):
    place = draw.randrange(len(text))
    length = draw.choice((1, 16, 4096))
    return text[:place] + "\0" * length + text[place + length :]


def mark(text, draw, path):
    return "\ufeff" + text


def line_ends(text, draw, path):
    return text.replace("\n", "\r\n")


def tabs(text, draw, path):
    return text.replace("\t", " ", draw.choice((1, -1))) if "\t" in text else None


def duplicated(text, draw, path):
    if _is_document(text, path):
        return _with_lists(text, draw, lambda items: items.insert(0, items[draw.randrange(len(items))]))
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    return "".join((*lines[:place], lines[place], *lines[place:]))


def _is_document(text, path):
    """Whether a file is one JSON value; AfriQA's .json files have a value a line."""
    try:
        return path.endswith(".json") and json.loads(text) is not None
    except ValueError:
        return False


def _with_lists(text, draw, change):
    document = json.loads(text)
    lists = [value for holder, key in _spots(document) if isinstance(value := holder[key], list) and value]
    if not lists:
        return None
    change(draw.choice(lists))
    return json.dumps(document, indent=1)


def _spots(value):
    """Every place in nested JSON, as its holder and its key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


def _change_json(text, draw, path, change):
    """Changes one object (JSON) or the object of one line (JSONL)."""
    if _is_document(text, path):
        document = json.loads(text)
        return json.dumps(document, indent=1) if change(document) else None
    lines = text.splitlines()
    place = draw.randrange(len(lines))
    record = json.loads(lines[place])
    lines[place] = json.dumps(record) if change(record) else ""
    return "\n".join(lines) + "\n" if lines[place] else None


def keys(text, draw, path):
    """A key is missing, or its value null, of another type, nested deeply, or absurdly long."""
    if not path.endswith((".json", ".jsonl")):
        return cells(text, draw, path)
    slot = f"slot{draw.random()}"

    def change(document):
        holder, key = draw.choice(list(_spots(document)))
        if draw.random() < 0.2 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = slot if draw.random() < 0.2 else draw.choice(WRONG)
        return True

    absurd = draw.choice(
        ("[" * 100_000 + "]" * 100_000, "9" * 5000, "1e999", '{"a":' * 5000 + "1" + "}" * 5000)
    )
    return _change_json(text, draw, path, change).replace(f'"{slot}"', absurd)


def cells(text, draw, path):
    """A cell of a table is missing or other than it was."""
    separator = "," if path.endswith(".csv") else "\t"
    lines = text.splitlines()
    place = draw.randrange(len(lines))
    values = lines[place].split(separator)
    column = draw.randrange(len(values))
    values[column : column + 1] = draw.choice(
        ([], ["null"], [""], ["7"], ["\u00a0"], ["x", "y"], ["9" * 5000])
    )
    lines[place] = separator.join(values)
    return "\n".join(lines) + "\n"


def blank(text, draw, path):
    """One label is blank."""
    if path.endswith((".json", ".jsonl")):

        def change(document):
            found = [(holder, key) for holder, key in _spots(document) if key in LABELS]
            if found:
                holder, key = draw.choice(found)
                holder[key] = draw.choice(([], "", None))
            return bool(found)

        return _change_json(text, draw, path, change)
    separator = "," if path.endswith(".csv") else "\t"
    lines = text.splitlines()
    filled = [place for place, line in enumerate(lines) if separator in line and (place or len(lines) == 1)]
    if not filled:
        return None
    place = draw.choice(filled)
    lines[place] = lines[place].rpartition(separator)[0] + draw.choice(("", separator))
    return "\n".join(lines) + "\n"


def swapped(text, draw, path):
    """Two columns, or the values of two keys, change places in one row."""
    if path.endswith((".json", ".jsonl")):

        def change(document):
            holders = [
                h
                for h in (document, *(h[k] for h, k in _spots(document)))
                if isinstance(h, dict) and len(h) > 1
            ]
            if holders:
                holder = draw.choice(holders)
                one, other = draw.sample(sorted(holder), 2)
                holder[one], holder[other] = holder[other], holder[one]
            return bool(holders)

        return _change_json(text, draw, path, change)
    separator = "," if path.endswith(".csv") else "\t"
    lines = text.splitlines()
    wide = [place for place, line in enumerate(lines) if separator in line]
    if not wide:
        return None
    for place in wide if draw.random() < 0.5 else [draw.choice(wide)]:
        values = lines[place].split(separator)
        lines[place] = separator.join((values[1], values[0], *values[2:]))
    return "\n".join(lines) + "\n"


MUTATIONS = (cut, flip, zeros, mark, line_ends, tabs, keys, blank, duplicated, swapped)


def train_tokenizer(folder, texts):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=200,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return load_tokenizer(folder)


def read(seed, root, tokenizer):
    """Does what a grid's check does, and tokenizes; returns what was read."""
    source = DataSource(root)
    available_languages(seed.task, seed.split, source, beyond=True)
    if seed.task.retrieval and seed.split == seed.task.reported:
        found = read_retrieval(seed.task, seed.split, seed.language, source)
        texts, rows = [*found.queries, *found.candidates], (found.queries, found.candidates, found.gold)
    else:
        texts = rows = read_counted(
            with_labels(seed.task, source), seed.split, seed.language, source
        ).examples
    build_features(
        seed.task.kind, {seed.language: texts}, tokenizer, FeatureSettings(64, 16, 16), training=False
    )
    return rows


def shorten(name, text):
    """The first rows of a file of the toy world."""
    if name.endswith(".json"):
        document = json.loads(text)
        document["data"] = document["data"][:1]
        document["data"][0]["paragraphs"] = document["data"][0]["paragraphs"][:3]
        return json.dumps(document, indent=1)
    if name.startswith(("tatoeba", "bucc")):
        return text
    return "".join(text.splitlines(keepends=True)[:ROWS])


def collect_seeds(world):
    """(name, seed, path of the file that is mutated) of the tiny files, filled from the toy world where it has them."""
    for name, seed in seed_files.SEEDS.items():
        there = all((world / path).is_file() for path in seed.files)
        files = (
            {path: shorten(path, (world / path).read_text()) for path in seed.files} if there else seed.files
        )
        for path in files:
            yield f"{name}: {Path(path).name}", seed._replace(files=files), path


def _stop(number, frame):
    raise TimeoutError


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _stop)
    counts, silent, failures = collections.Counter(), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for write in (write_texts, write_tasks):
            write(folder / "world", size="test")
        seeds = list(collect_seeds(folder / "world" / "tasks"))
        texts = [text for _, seed, _ in seeds for text in seed.files.values()]
        tokenizer = train_tokenizer(
            folder, [line for text in texts for line in text.splitlines() if line.strip()]
        )
        for number in range(options.count):
            kind, seed, path = seeds[number % len(seeds)]
            mutation = MUTATIONS[number // len(seeds) % len(MUTATIONS)]
            root = folder / f"root{number}"
            for other, text in seed.files.items():
                (root / other).parent.mkdir(parents=True, exist_ok=True)
                (root / other).write_text(text)
            before = read(seed, root, tokenizer)
            draw = random.Random(f"{options.seed} {number}")
            mutated = mutation(seed.files[path], draw, path)
            if mutated is None:  # no tabs, no labels: something else instead
                mutation = draw.choice((cut, flip, keys, duplicated))
                mutated = mutation(seed.files[path], draw, path) or ""
            content = mutated if isinstance(mutated, bytes) else mutated.encode("utf-8", "surrogatepass")
            (root / path).write_bytes(content)
            case = f"{number} {kind} {mutation.__name__}"
            signal.alarm(SECONDS)
            try:
                after = read(seed, root, tokenizer)
            except DataError as error:
                counts["refused"] += 1
                # Of files that belong together the error may name the other one.
                if not any(Path(other).name in str(error) for other in seed.files):
                    failures.append(f"{case}: refused without the file's name: {error}")
            except TimeoutError:
                failures.append(f"{case}: hangs")
            except Exception:
                failures.append(f"{case}: {traceback.format_exc()}")
            else:
                counts["accepted, equal" if after == before else "accepted, other examples"] += 1
                if after != before:
                    silent.append((mutation.__name__, case, seed.files[path].encode(), content))
            signal.alarm(0)
    print(f"seed {options.seed}: {options.count} mutated files of {len(seeds)} kinds: {dict(counts)}")
    for mutation, case, before, after in sorted(silent):
        place = next(
            (i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after))
        )
        shown = (content[max(place - 20, 0) : place + 30] for content in (before, after))
        print(f"silent {mutation}: {case}:", " -> ".join(map(repr, shown)))
    print("\n".join(failures))
    print(f"{len(failures)} tracebacks, hangs and errors without a place")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
