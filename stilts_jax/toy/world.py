"""Writes the embedded world: data of every kind in the real release formats, and an encoder to be trained."""

import hashlib
import io
import itertools
import json
import tempfile
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import log10
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import sentencepiece
from PIL import Image, ImageDraw

from stilts_jax.files import write_lines, write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.toy import tasks
from stilts_jax.toy.languages import Language, build_languages, say, spell, text_of
from stilts_jax.toy.meaning import Utterance
from stilts_jax.toy.tasks import Passage, distinct


class Size(NamedTuple):
    """How much of everything there is."""

    train: int  # items of an English training set
    scarce: int  # passages of TyDiQA's English training set: as few beside SQuAD's as there really are
    copa: int  # items of COPA's English training set: the real one is small too
    dev: int  # items of a development set, in each language
    test: int  # items of a test set, in each language
    pool: int  # sentences of a retrieval pool
    text: int  # lines of English text
    parallel: int  # sentence pairs of English with each other language
    vocabulary: int  # pieces of the tokenizer
    hidden: int  # width of the encoder
    layers: int  # depth of the encoder
    pictures: int  # pictures to train on; to test, a quarter
    latin_names: Mapping[str, float] = {}  # shares of names in Latin letters where not those of the design


SIZES = {
    "test": Size(240, 16, 240, 32, 40, 40, 300, 200, 1000, 32, 2, 80),
    "small": Size(3200, 132, 400, 200, 300, 200, 2500, 5000, 1200, 64, 3, 400),
    # Names in Latin letters are all that other scripts have in common with English, where real text has English words
    # too: with few of them, training on SQuAD takes from tagging in these languages.
    "full": Size(
        6000, 250, 400, 300, 500, 300, 5000, 10000, 1200, 96, 4, 2000, {"ru": 0.9, "ar": 0.8, "zh": 0.8}
    ),
}
# The languages of the tasks (by folder) that are not in all languages.
_SPOKEN = {
    "pawsx": "en de es zh",
    **dict.fromkeys(("udpos", "xquad", "lareqa"), "en de es tr ru ar zh"),
    "tydiqa": "en sw ru ar",
    "xcopa": "en sw tr zh",
    "bucc2018": "de ru zh",
}
_TYDIQA = "tydiqa/tydiqa-goldp-v1.1"
# Sets of items: whose random numbers they take, what draws one, the splits (whose sizes are fields of `Size`), and the
# files that say them. A path with {code} is written in every language of its task, but for training in English. Sets
# that the same function draws share no item. Whoever changes the order, or the names that seed the random numbers,
# changes the world of every seed.
_SETS: tuple[tuple[str, Callable[[Random], Hashable], str, str], ...] = (
    ("_write_inference", tasks.inference, "test dev", "xnli/{split}-{code}.tsv"),
    ("_write_inference", tasks.inference, "dev", "mnli/multinli_1.0_dev_matched.jsonl"),
    ("_write_inference", tasks.inference, "train", "xnli/train-en.tsv mnli/multinli_1.0_train.jsonl"),
    ("_write_paraphrases", tasks.paraphrase, "test dev train", "pawsx/{split}-{code}.tsv"),
    ("_write_tagging", tasks.udpos, "test dev train", "udpos/{split}-{code}.tsv"),
    ("_write_tagging", tasks.panx, "test dev train", "panx/{split}-{code}.tsv"),
    ("_write_questions", tasks.passage, "test", "xquad/xquad.{code}.json lareqa/xquad-r/{code}.json"),
    ("_write_questions", tasks.passage, "dev train", "squad/{split}-v1.1.json"),
    ("_write_scarce", tasks.passage, "test", f"{_TYDIQA}-dev/tydiqa.goldp.{{code}}.dev.json"),
    ("_write_scarce", tasks.passage, "scarce", f"{_TYDIQA}-train/tydiqa.goldp.en.train.json"),
    ("_write_choices", tasks.copa, "test", "xcopa/test-{code}.jsonl"),
    ("_write_choices", tasks.copa, "dev", "xcopa/val-{code}.jsonl"),
    ("_write_choices", tasks.copa, "copa", "xcopa/train-en.jsonl"),
    ("_write_choices", tasks.siqa, "dev", "siqa/socialIQa_v1.4_dev.jsonl"),
    ("_write_choices", tasks.siqa, "train", "siqa/socialIQa_v1.4_trn.jsonl"),
    ("_write_choices", tasks.continuation, "dev", "hellaswag/hellaswag_val.jsonl"),
    ("_write_choices", tasks.continuation, "train", "hellaswag/hellaswag_train.jsonl"),
    ("_write_choices", tasks.kind_question, "dev train", "commonsenseqa/{split}_rand_split.jsonl"),
)
# Pictures show one coloured shape on white each.
SIDE = 32  # pixels
COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 210), "black": (20, 20, 20)}
SHAPES = ("circle", "rectangle", "triangle")
_LONGEST_PIECE = 12  # characters
_LONGEST_TEXT = 128  # tokens that the encoder takes


def write_tasks(root: Path, *, size: str, seed: int = 0, progress: Progress = SILENT) -> None:
    """Writes the tasks below ``root/data``: their data as XTREME lays them out, pictures as easy-VQA and COCO do.

    Items are drawn once, as meanings, and said in every language, so that the languages' files are aligned.
    """
    amounts, data = SIZES[size], root / "data"
    languages = build_languages(seed, amounts.latin_names)
    draws = {stream: Random(f"{stream}/{seed}") for stream, *_ in _SETS}
    taken: defaultdict[Callable, set[Hashable]] = defaultdict(set)
    with progress.track("toy tasks", len(_SETS) + 1, "parts") as bar:
        for stream, make, splits, paths in _SETS:
            for split in splits.split():
                items = distinct(make, getattr(amounts, split), draws[stream], taken[make])
                for path in paths.split():
                    task, several = path.split("/")[0], "{code}" in path and split != "train"
                    for language in _speakers(task, languages) if several else languages[:1]:
                        text = _text_of_file(task, items, language)
                        write_whole(data / path.format(split=split, code=language.code), text)
            bar.advance()
        write_pictures(data, {"train": amounts.pictures, "test": amounts.pictures // 4}, seed)
        bar.advance()


def write_texts(root: Path, *, size: str, seed: int = 0, progress: Progress = SILENT) -> None:
    """Writes ``root/data/text``, running and parallel text, ``root/encoder``, whose weights are to be trained, and
    ``root/languages.csv``, the languages' distances from English. The same size and seed give the same bytes.

    Pools of sentences that are mined belong to it, as none of them may be parallel text too.
    """
    amounts, data = SIZES[size], root / "data"
    languages = build_languages(seed, amounts.latin_names)
    texts: list[str] = []
    rows = [",".join(("code", "name", "script", *languages[0].distances, "log_text_bytes"))]
    with progress.track("toy texts", len(languages) + 2, "parts") as bar:
        said = _write_retrieval(data, languages, amounts.pool, Random(f"_write_retrieval/{seed}"))
        bar.advance()
        for language in languages:
            path = data / "text" / f"{language.code}.txt"
            texts += _write_text(path, language, languages[0], amounts, seed, said)
            numbers = (*language.distances.values(), log10(path.stat().st_size))
            known = (language.code, language.name, language.script, *(round(number, 4) for number in numbers))
            rows.append(",".join(map(str, known)))
            bar.advance()
        _write_encoder(root / "encoder", texts, amounts.vocabulary, amounts.hidden, amounts.layers)
        write_lines(root / "languages.csv", rows)
        bar.advance()


def _speakers(task: str, languages: Sequence[Language]) -> list[Language]:
    return [one for one in languages if one.code in _SPOKEN.get(task, one.code)]


def _write_retrieval(data: Path, languages: Sequence[Language], size: int, draw: Random) -> set[Hashable]:
    """Pools of sentences, and which are translations; returns what they say: it must not be parallel text too."""
    english, said = languages[0], set[Hashable]()
    shared = distinct(tasks.retrieved, size, draw, said)
    # The English side is sorted, and the gold says where each partner stands.
    pairs = sorted((text_of(sentence, english), number) for number, sentence in enumerate(shared))
    for language in languages[1:]:
        stem = f"{data}/tatoeba/{language.code}-en"
        write_lines(Path(f"{stem}.{language.code}"), [text_of(sentence, language) for sentence in shared])
        write_lines(Path(f"{stem}.en"), [text for text, _ in pairs])
        write_lines(Path(f"{stem}.gold"), [str(number) for _, number in pairs])
    for language in _speakers("bucc2018", languages):
        for split, count in (("dev", size // 2), ("test", size)):
            stem = f"{data}/bucc2018/{language.code}-en.{split}"
            shared, *others = (distinct(tasks.retrieved, n, draw, said) for n in (count // 2, count, count))
            numbers = []
            for spoken, only in zip((language, english), others, strict=True):
                pool = [*shared, *only]
                draw.shuffle(pool)
                names = {sentence: f"{spoken.code}-{n:09d}" for n, sentence in enumerate(pool, start=1)}
                rows = [f"{name}\t{text_of(sentence, spoken)}" for sentence, name in names.items()]
                write_lines(Path(f"{stem}.{spoken.code}"), rows)
                numbers.append(names)
            gold = sorted(f"{numbers[0][sentence]}\t{numbers[1][sentence]}" for sentence in shared)
            write_lines(Path(f"{stem}.gold"), gold)
    return said


def _write_text(
    path: Path, language: Language, english: Language, size: Size, seed: int, said: set[Hashable]
) -> list[str]:
    """Running text of a language, and sentences with their English translations; returns all of it."""
    draw, amount = Random(f"text/{seed}/{language.code}"), round(size.text * language.text_share)
    lines = [text_of(tasks.running_text(draw), language) for _ in range(amount)]
    own, theirs = list[str](), list[str]()
    if language is english:  # the tasks themselves ask in English; so its text has such questions too
        for _ in range(size.text // 10):
            premise, asked, options, label = tasks.copa(draw)
            told, right = text_of(premise, english), text_of(options[label], english)
            lines.append(f"{told} What was the {asked}? {right}")
    else:
        while len(own) < size.parallel:
            sentence = tasks.sentence(draw, questions=0.2)
            if sentence not in said:
                own.append(text_of(sentence, language))
                theirs.append(text_of(sentence, english))
        write_lines(path.with_name(f"{language.code}-en.tsv"), [f"{a}\t{b}" for a, b in zip(own, theirs)])
    write_lines(path, lines)
    return own + theirs + lines


def _text_of_file(task: str, items: Sequence[Any], language: Language) -> str:
    """The text of a file of items in the format of the task's release."""
    if task in ("squad", "xquad", "tydiqa", "lareqa"):  # LAReQA's says where the sentences of a paragraph are
        breaks = task == "lareqa"
        paragraphs = [_paragraph(item, number, language, breaks) for number, item in enumerate(items)]
        starts = range(0, len(paragraphs), 5)
        articles = [{"title": f"Toy_{n // 5}", "paragraphs": paragraphs[n : n + 5]} for n in starts]
        return json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False, indent=1) + "\n"
    if task in ("udpos", "panx"):  # a word and its tag a line, an empty line behind each sentence
        column = "tag" if task == "udpos" else "entity"
        sentences = [say(item, language) for item in items]
        records = ["".join(f"{one.text}\t{getattr(one, column)}\n" for one in words) for words in sentences]
    elif task in ("xnli", "pawsx"):
        records = ["\t".join(_spoken(item, language)) for item in items]
    else:
        objects = [_record(task, _spoken(item, language), number) for number, item in enumerate(items)]
        records = [json.dumps(record, ensure_ascii=False) for record in objects]
    return "".join(record + "\n" for record in records)


def _spoken(item: Any, language: Language) -> Any:
    """An item with texts in place of what is to be said."""
    if isinstance(item, tuple):
        return tuple(_spoken(part, language) for part in item)
    return text_of(item, language) if isinstance(item, Utterance) else item


def _record(task: str, item: Any, number: int) -> dict:
    """The JSON object of an item whose sentences are said."""
    if task == "mnli":
        first, second, label = item
        return {"gold_label": label, "pairID": f"toy-{number}", "sentence1": first, "sentence2": second}
    if task == "commonsenseqa":  # only in English, whose words are the concepts
        name, nouns, label = item
        choices = [{"label": letter, "text": noun} for letter, noun in zip("ABCDE", nouns, strict=True)]
        question = {"question_concept": name, "choices": choices, "stem": f"what is {name}?"}
        return {"answerKey": "ABCDE"[label], "id": f"toy-{number}", "question": question}
    premise, asked, options, label = item
    if task == "xcopa":
        given = {"premise": premise, "choice1": options[0], "choice2": options[1], "question": asked}
        return {**given, "label": label, "idx": number, "changed": False}
    if task == "siqa":
        answers = {f"answer{letter}": option for letter, option in zip("ABC", options, strict=True)}
        return {"context": premise, "question": f"What was the {asked}?", **answers, "correct": "ABC"[label]}
    assert task == "hellaswag"
    context = {"ind": number, "activity_label": "toy", "ctx_a": premise, "ctx_b": "", "ctx": premise}
    return {**context, "endings": options, "label": label}


def _paragraph(item: Passage, number: int, language: Language, breaks: bool) -> dict:
    sentences = [say(said, language) for said in item.sentences]
    context, offsets = spell(sentences, language)
    questions = []
    for index, question in enumerate(item.questions):
        words = zip(sentences[question.sentence], offsets[question.sentence], strict=True)
        parts = ("O", "C") if question.asked.asked == "O" else (question.asked.asked,)
        spans = [span for word, span in words if word.part in parts]
        start, end = spans[0][0], spans[-1][1]
        identifier = hashlib.sha256(f"{number}/{index}/{item}".encode()).hexdigest()[:24]
        answers = [{"text": context[start:end], "answer_start": start}]
        asked = text_of(question.asked, language)
        questions.append({"id": identifier, "question": asked, "answers": answers})
    sentence_breaks = [[spans[0][0], spans[-1][1]] for spans in offsets]
    return {"context": context, "qas": questions} | ({"sentence_breaks": sentence_breaks} if breaks else {})


def write_pictures(data: Path, counts: Mapping[str, int], seed: int) -> None:
    """Writes easy-VQA with so many pictures of each part ("train", "test"), and the same shapes with captions, as COCO.

    What a question asks is on the picture only: its words do not tell the answer.
    """
    for part, coco in (("train", "train2014"), ("test", "val2014")):
        draw, content = Random(f"pictures/{part}/{seed}"), io.BytesIO()
        asked: list[tuple[str, str, int]] = []
        images, captions = [], []
        with zipfile.ZipFile(content, "w") as archive:
            for number in range(counts[part]):
                colour, shape = draw.choice(tuple(COLOURS)), draw.choice(SHAPES)
                name = f"{number}.png"
                # Without a time: the same bytes whenever it is written.
                archive.writestr(zipfile.ZipInfo(name), _draw(colour, shape, draw))
                # Two open questions, and one whose answer is as often yes as no.
                thought = draw.choice((colour, draw.choice([other for other in COLOURS if other != colour])))
                asked.append(("what color is the shape?", colour, number))
                asked.append(("what shape is it?", shape, number))
                asked.append((f"is the shape {thought}?", "yes" if thought == colour else "no", number))
                images.append({"id": number, "file_name": name})
                captions.append({"id": number, "image_id": number, "caption": f"the {shape} is {colour}."})
        for path in (f"easy_vqa/{part}/images.zip", f"coco/{coco}.zip"):
            write_whole(data / path, content.getvalue())
        write_whole(data / f"easy_vqa/{part}/questions.json", json.dumps(asked) + "\n")
        described = json.dumps({"images": images, "annotations": captions}) + "\n"
        write_whole(data / f"coco/annotations/captions_{coco}.json", described)


def _draw(colour: str, shape: str, draw: Random) -> bytes:
    radius = draw.randint(SIDE // 4, SIDE // 2 - 2)
    x, y = (draw.randint(radius, SIDE - 1 - radius) for _ in range(2))
    picture, file = Image.new("RGB", (SIDE, SIDE), "white"), io.BytesIO()
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = x - radius, y - radius, x + radius, y + radius
    if shape == "triangle":
        pen.polygon([(x, top), (right, bottom), (left, bottom)], fill=COLOURS[colour])
    else:
        stroke = pen.ellipse if shape == "circle" else pen.rectangle
        stroke((left, top, right, bottom), fill=COLOURS[colour])
    picture.save(file, "PNG")
    return file.getvalue()


def _write_encoder(folder: Path, texts: Sequence[str], vocabulary: int, hidden: int, layers: int) -> None:
    """Trains a Unigram tokenizer with XLM-R's ids on ``texts`` and writes it, with ``config.json`` of a small shape.

    ``vocabulary`` pieces are trained for; the true number, with the special tokens, is in ``config.json``.
    """
    from transformers import AutoTokenizer

    model = _train_unigram(texts, vocabulary)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    # <s> <pad> </s> <unk>, the pieces (the trainer's own three stand for <unk>, <s>, </s>), <mask>
    config = {
        "architectures": ["XLMRobertaForMaskedLM"],
        "model_type": "xlm-roberta",
        "vocab_size": pieces + 2,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": _LONGEST_TEXT + 2,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,  # so small an encoder is far from learning its text by heart
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": _LONGEST_TEXT}
    with tempfile.TemporaryDirectory() as source:
        Path(source, "sentencepiece.bpe.model").write_bytes(model)
        Path(source, "tokenizer_config.json").write_text(json.dumps(settings))
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _train_unigram(texts: Sequence[str], vocabulary: int) -> bytes:
    # The trainer takes its first candidates from substrings that occur in two different words. In a language of a
    # few hundred words most whole words are no part of another, so it is given the candidates.
    words = Counter(word for text in texts for word in unicodedata.normalize("NFKC", text).split())
    candidates: Counter[str] = Counter()
    for word, count in words.items():
        marked = "\u2581" + word
        longest = 2 if any("\u4e00" <= letter <= "\u9fff" for letter in word) else _LONGEST_PIECE
        for start, end in itertools.combinations(range(len(marked) + 1), 2):
            if end - start <= longest:
                candidates[marked[start:end]] += count
    common = sorted(candidates.items(), key=lambda item: (-item[1] * len(item[0]), item[0]))
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "candidates.tsv")
        seeds.write_text("".join(f"{piece}\t{count}\n" for piece, count in common), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            seed_sentencepieces_file=str(seeds),
            num_threads=1,  # with several, sums of probabilities depend on who comes first
            minloglevel=2,
        )
    return model.getvalue()
