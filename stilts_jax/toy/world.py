"""Writes the embedded world: data of every kind in the real release formats, and an encoder to be trained."""

from collections.abc import Hashable
from dataclasses import dataclass
from math import log10
from pathlib import Path
from random import Random
from typing import Literal

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.progress import SILENT, Progress
from stilts_jax.toy import formats, tasks
from stilts_jax.toy.draw import event, passage, question, statement
from stilts_jax.toy.encoder import write_encoder_folder
from stilts_jax.toy.grammar import Utterance
from stilts_jax.toy.languages import Language, build_languages
from stilts_jax.toy.tasks import distinct


@dataclass(frozen=True)
class Size:
    """How much of everything there is.

    Attributes:
        train: items of an English training set.
        dev: items of a development set, in each language.
        test: items of a test set, in each language.
        pool: sentences of a retrieval pool.
        text: lines of English text.
        parallel: sentence pairs of English with each other language.
        vocabulary: pieces of the tokenizer.
        hidden: width of the encoder.
        layers: depth of the encoder.
    """

    train: int
    dev: int
    test: int
    pool: int
    text: int
    parallel: int
    vocabulary: int
    hidden: int
    layers: int


SIZES = {
    "test": Size(
        train=240, dev=32, test=40, pool=40, text=300, parallel=200, vocabulary=1000, hidden=32, layers=2
    ),
    "small": Size(
        train=3200,
        dev=200,
        test=300,
        pool=200,
        text=2500,
        parallel=5000,
        vocabulary=1200,
        hidden=64,
        layers=3,
    ),
    "full": Size(
        train=6000,
        dev=300,
        test=500,
        pool=300,
        text=5000,
        parallel=10000,
        vocabulary=1200,
        hidden=96,
        layers=4,
    ),
}
XNLI_LANGUAGES = frozenset(("en", "de", "es", "ru", "zh", "ar", "tr", "sw"))
PAWSX_LANGUAGES = frozenset(("en", "de", "es", "zh"))
UDPOS_LANGUAGES = XNLI_LANGUAGES - {"sw"}
XQUAD_LANGUAGES = XNLI_LANGUAGES - {"sw"}
XCOPA_LANGUAGES = frozenset(("sw", "tr", "zh"))
BUCC_LANGUAGES = frozenset(("de", "ru", "zh"))


@dataclass(frozen=True)
class World:
    """Where the written world is, and what is known of it.

    Attributes:
        data_root: folder of the tasks' data, as XTREME lays it out; ``text/`` has running and parallel text.
        encoder: folder with a tokenizer and ``config.json``; its weights are to be trained.
        distances: CSV file of the languages with their distances from English.
        languages: English first.
    """

    data_root: Path
    encoder: Path
    distances: Path
    languages: tuple[Language, ...]


def write_world(
    root: Path, *, size: Literal["test", "small", "full"], seed: int = 0, progress: Progress = SILENT
) -> World:
    """Writes the toy world below ``root``; the same size and seed give the same bytes.

    Items are drawn once, as meanings, and said in every language, so that the languages' files are aligned.
    """
    if size not in SIZES:
        raise ConfigError(f"there is no toy world of size {size!r}", fix=nearest(size, SIZES))
    world = World(root / "data", root / "encoder", root / "languages.csv", build_languages(seed))
    amounts = SIZES[size]
    steps = (
        _write_inference,
        _write_paraphrases,
        _write_tagging,
        _write_questions,
        _write_choices,
        _write_retrieval,
    )
    with progress.track("toy world", len(steps) + 2, "parts") as bar:
        said: set[Hashable] = set()  # sentences of retrieval pools: they must not be parallel text too
        for step in steps:
            step(world, amounts, Random(f"{step.__name__}/{seed}"), said)
            bar.advance()
        texts = _write_text(world, amounts, seed, said)
        bar.advance()
        shape = {
            "hidden_size": amounts.hidden,
            "num_hidden_layers": amounts.layers,
            "num_attention_heads": amounts.hidden // 16,
            "intermediate_size": 4 * amounts.hidden,
            "max_position_embeddings": 130,
        }
        write_encoder_folder(world.encoder, texts, amounts.vocabulary, shape)
        _write_distances(world)
        bar.advance()
    return world


def _spoken(world: World, codes: frozenset[str]) -> list[Language]:
    return [language for language in world.languages if language.code in codes]


def _write_inference(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    taken: set[Hashable] = set()
    english, root = world.languages[0], world.data_root
    test = distinct(tasks.inference, size.test, draw, taken)
    dev = distinct(tasks.inference, size.dev, draw, taken)
    matched = distinct(tasks.inference, size.dev, draw, taken)
    train = distinct(tasks.inference, size.train, draw, taken)
    for language in _spoken(world, XNLI_LANGUAGES):
        formats.write_pairs(root / "xnli" / f"dev-{language.code}.tsv", dev, language)
        formats.write_pairs(root / "xnli" / f"test-{language.code}.tsv", test, language)
    formats.write_pairs(root / "xnli" / "train-en.tsv", train, english)
    formats.write_mnli(root / "mnli" / "multinli_1.0_train.jsonl", train, english)
    formats.write_mnli(root / "mnli" / "multinli_1.0_dev_matched.jsonl", matched, english)


def _write_paraphrases(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    taken: set[Hashable] = set()
    test = distinct(tasks.paraphrase, size.test, draw, taken)
    dev = distinct(tasks.paraphrase, size.dev, draw, taken)
    train = distinct(tasks.paraphrase, size.train, draw, taken)
    folder = world.data_root / "pawsx"
    for language in _spoken(world, PAWSX_LANGUAGES):
        formats.write_pairs(folder / f"dev-{language.code}.tsv", dev, language)
        formats.write_pairs(folder / f"test-{language.code}.tsv", test, language)
    formats.write_pairs(folder / "train-en.tsv", train, world.languages[0])


def _write_tagging(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    for name, column, spoken in (
        ("udpos", "tag", UDPOS_LANGUAGES),
        ("panx", "entity", XNLI_LANGUAGES),
    ):
        taken: set[Hashable] = set()
        for split, count in (("test", size.test), ("dev", size.dev), ("train", size.train)):
            items = distinct(tasks.tagged, count, draw, taken)
            for language in _spoken(world, spoken) if split != "train" else world.languages[:1]:
                path = world.data_root / name / f"{split}-{language.code}.tsv"
                formats.write_tagged(path, items, language, column)


def _write_questions(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    taken: set[Hashable] = set()
    root, english = world.data_root, world.languages[0]
    test = distinct(tasks.passage, size.test, draw, taken)
    dev = distinct(tasks.passage, size.dev, draw, taken)
    train = distinct(tasks.passage, size.train, draw, taken)
    for language in _spoken(world, XQUAD_LANGUAGES):
        formats.write_squad(root / "xquad" / f"xquad.{language.code}.json", test, language)
        formats.write_squad(
            root / "lareqa" / "xquad-r" / f"{language.code}.json", test, language, breaks=True
        )
    formats.write_squad(root / "squad" / "dev-v1.1.json", dev, english)
    formats.write_squad(root / "squad" / "train-v1.1.json", train, english)


def _write_choices(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    root, english = world.data_root, world.languages[0]
    taken: set[Hashable] = set()
    test = distinct(tasks.causal(2), size.test, draw, taken)
    val = distinct(tasks.causal(2), size.dev, draw, taken)
    train = distinct(tasks.causal(2), min(size.train, 400), draw, taken)
    for language in (english, *_spoken(world, XCOPA_LANGUAGES)):
        formats.write_copa(root / "xcopa" / f"val-{language.code}.jsonl", val, language)
        formats.write_copa(root / "xcopa" / f"test-{language.code}.jsonl", test, language)
    formats.write_copa(root / "xcopa" / "train-en.jsonl", train, english)
    siqa_dev = distinct(tasks.causal(3), size.dev, draw, taken)
    siqa_train = distinct(tasks.causal(3), size.train, draw, taken)
    formats.write_siqa(root / "siqa" / "socialIQa_v1.4_dev.jsonl", siqa_dev, english)
    formats.write_siqa(root / "siqa" / "socialIQa_v1.4_trn.jsonl", siqa_train, english)
    endings_dev = distinct(tasks.continuation, size.dev, draw, taken)
    endings = distinct(tasks.continuation, size.train, draw, taken)
    formats.write_hellaswag(root / "hellaswag" / "hellaswag_val.jsonl", endings_dev, english)
    formats.write_hellaswag(root / "hellaswag" / "hellaswag_train.jsonl", endings, english)
    kinds_dev = distinct(tasks.kind_question, size.dev, draw, taken)
    kinds = distinct(tasks.kind_question, size.train, draw, taken)
    formats.write_commonsenseqa(root / "commonsenseqa" / "dev_rand_split.jsonl", kinds_dev, english)
    formats.write_commonsenseqa(root / "commonsenseqa" / "train_rand_split.jsonl", kinds, english)


def _write_retrieval(world: World, size: Size, draw: Random, said: set[Hashable]) -> None:
    english = world.languages[0]
    pool = distinct(tasks.sentence, size.pool, draw, said)
    for language in world.languages[1:]:
        formats.write_tatoeba(world.data_root / "tatoeba", pool, english, language)
    for language in _spoken(world, BUCC_LANGUAGES):
        for split, count in (("dev", size.pool // 2), ("test", size.pool)):
            shared = distinct(tasks.sentence, count // 2, draw, said)
            only = (distinct(tasks.sentence, count, draw, said), distinct(tasks.sentence, count, draw, said))
            folder = world.data_root / "bucc2018"
            formats.write_bucc(folder, split, shared, only, (language, english), draw)


def _write_text(world: World, size: Size, seed: int, said: set[Hashable]) -> list[str]:
    """Running text of every language, and sentences with their English translations; returns all of it."""
    english, folder = world.languages[0], world.data_root / "text"
    texts = []
    for language in world.languages:
        draw = Random(f"text/{seed}/{language.code}")
        lines = [
            formats.text_of(passage(draw), language) for _ in range(round(size.text * language.text_share))
        ]
        if language is english:
            # The tasks themselves ask in English; so its text has such questions too.
            lines += [_told_cause(draw, english) for _ in range(size.text // 10)]
        else:
            pairs = [(_parallel(draw, said),) for _ in range(size.parallel)]
            halves = [[formats.text_of(pair, spoken) for pair in pairs] for spoken in (language, english)]
            formats.write_lines(folder / f"{language.code}-en.tsv", ["\t".join(row) for row in zip(*halves)])
            texts += halves[0] + halves[1]
        formats.write_lines(folder / f"{language.code}.txt", lines)
        texts += lines
    return texts


def _parallel(draw: Random, said: set[Hashable]) -> Utterance:
    while True:
        pair = question(event(draw), draw) if draw.random() < 0.2 else statement(draw)
        if pair not in said:
            return pair


def _told_cause(draw: Random, english: Language) -> str:
    choice = tasks.causal(2)(draw)
    right = formats.text_of([choice.options[choice.label]], english)
    return f"{formats.text_of([choice.premise], english)} What was the {choice.asked}? {right}"


def _write_distances(world: World) -> None:
    rows: list[dict[str, object]] = []
    for language in world.languages:
        size = (world.data_root / "text" / f"{language.code}.txt").stat().st_size
        rows.append(
            {
                "code": language.code,
                "name": language.name,
                "script": language.script,
                "distance": round(language.distance, 4),
                "spelling_difference": round(1 - language.shared_spelling, 4),
                "order_difference": round(language.order_difference, 4),
                "log_text_bytes": round(log10(size), 4),
            }
        )
    formats.write_table(world.distances, rows)
