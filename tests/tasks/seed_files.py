"""A tiny data root for every kind of file that a task reads: what is mutated in tests of bad input."""

import json
from typing import NamedTuple

from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import choice_task, classify_task, pair_task, span_task, tag_task
from stilts_jax.tasks.spec import Task


class Seed(NamedTuple):
    """Files by path, and what is read of them."""

    task: Task
    split: str
    language: str
    files: dict[str, str]


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def tsv(*rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def table(rows):
    return tsv(tuple(rows[0]), *(tuple(row.values()) for row in rows))


def squad(*contexts, **extra):
    paragraphs = []
    for number, context in enumerate(contexts):
        answers = [{"text": context.split()[0], "answer_start": 0}]
        asked = {"id": f"q{number}", "question": f"Who came {number}?", "answers": answers}
        more = {key: make(context) for key, make in extra.items()}
        paragraphs.append({"context": context, "qas": [asked], **more})
    return json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]}, indent=1)


def nli(number, label):
    texts = {"sentence1": f"A dog runs {number}.", "sentence2": f"An animal moves {number}."}
    return {"gold_label": label, "pairID": f"p{number}", **texts}


def copa(number):
    texts = {"premise": f"It rained {number}.", "choice1": "The street was wet.", "choice2": "The sun shone."}
    return {**texts, "question": "effect", "label": number % 2, "idx": number, "changed": False}


def mention(number):
    span = {"start": 0, "end": 6, "text": "Berlin"}
    return {"example_id": f"m{number}", "mention_span": span, "entity_id": f"Q{number}"}


def entity(number):
    description = f"Capital number {number} of a country."
    spans = [{"start": 0, "end": len(description)}]
    return {"entity_id": f"Q{number}", "description": description, "sentence_spans": spans}


MENTION_TEXT = "Berlin is large. It lies in Germany."
CONTEXT = {
    "text": MENTION_TEXT,
    "sentence_spans": [{"start": 0, "end": 16}, {"start": 17, "end": len(MENTION_TEXT)}],
}
NLI = [nli(number, label) for number, label in enumerate(("neutral", "entailment", "contradiction"))]
ANLI = [
    {"uid": f"u{number}", "context": f"A {number}.", "hypothesis": f"B {number}.", "label": label}
    for number, label in enumerate("enc")
]
CONTEXTS = ("Ann came home. She slept.", "Bob left town. He was sad.")
BREAKS = {"sentence_breaks": lambda context: [[0, 14], [15, len(context)]]}
TAGGED = "Ann\tNOUN\ncame\tVERB\n\nBob\tNOUN\nleft\tVERB\n.\tPUNCT\n"
CONLLU = "".join(
    "".join(f"{i}\t{word}\t_\t{tag}\t_\t_\t{i - 1}\t_\t_\t_\n" for i, (word, tag) in enumerate(sentence, 1))
    + "\n"
    for sentence in ((("Ann", "NOUN"), ("came", "VERB")), (("Bob", "NOUN"), ("left", "VERB")))
)
PAIRS = [(f"Rain {number}.", f"It is wet {number}.", label) for number, label in enumerate(("0", "1", "0"))]
XNLI_ROWS = [{"language": "de", **nli(number, "neutral")} for number in range(3)]
FRUIT = [{"label": letter, "text": f"fruit {letter}"} for letter in "ABCDE"]
QUESTION = {"stem": "Which is red?", "choices": FRUIT, "question_concept": "fruit"}
SCENES = [
    {"ind": number, "ctx_a": f"A man {number}", "ctx_b": "he", "endings": list("wxyz"), "label": number}
    for number in range(3)
]
REACTION = {"context": "Kim fell.", "question": "Why?", "answerA": "ice", "answerB": "luck", "answerC": "joy"}
SOCIAL = [REACTION | {"correct": letter} for letter in "ABC"]
SENSE = [{"id": f"y{letter}", "question": QUESTION, "answerKey": letter} for letter in "ABC"]
COSMOS = "id,context,question,answer0,answer1,answer2,answer3,label\n" + "".join(
    f'i{number},"It rained, hard.",Why?,a,b,c,d,{number}\n' for number in range(3)
)
TRANSLATED = tsv(("premise", "hypo", "label"), ("Ja.", "Nein.", "contradictory"))
NLI_FILES = {f"{name}.jsonl": jsonl(*NLI) for name in ("snli/snli_1.0_dev", "mnli/multinli_1.0_dev_matched")}
QUESTION_PAIRS = tsv(("id", "question1", "question2", "is_duplicate"), *(("7", *pair) for pair in PAIRS))
RELEASED_PAIRS = tsv(
    ("id", "sentence1", "sentence2", "label"), *((str(n), *pair) for n, pair in enumerate(PAIRS))
)
ENTITIES = "de:Ann\tB-PER\nde:kam\tO\n\nde:Bob\tB-PER\nde::\tO\n"
CATEGORIES = "Ann came\tN V\nBob left town\tN V N\n"
SQUAD, BROKEN_SQUAD = squad(*CONTEXTS), squad(*CONTEXTS, **BREAKS)
POSSIBLE = '"is_impossible": false,\n "answers"'
FINNISH = SQUAD.replace('"id": "', '"id": "finnish-')
MENTIONS = [{"context": CONTEXT, "mentions": [mention(number)]} for number in range(3)]
MEWSLIX = {
    "mewslix/wikinews_mentions/test-de.jsonl": jsonl(*MENTIONS),
    "mewslix/candidate_set_entities.jsonl": jsonl(*map(entity, range(3))),
}
LINKS = json.dumps({f"m{number}": [f"Q{number}"] for number in range(3)})
LINKED = [
    {"contextual_mention": {"context": CONTEXT, "mention": mention(n)}, "entity": entity(n)} for n in range(3)
]
PASSAGE = {"link": "x", "question": "Where?", "dialect": "deu_Latn"} | {
    f"mc_answer{m}": f"in {m}" for m in (1, 2, 3, 4)
}
BELEBELE = [
    {"question_number": n, "flores_passage": f"It rains {n}.", **PASSAGE, "correct_answer_num": str(n)}
    for n in (1, 2)
]
IN_BYTES = {"text": "Ọjọ́: Ann", "spans": [{"start_byte": 11, "limit_byte": 14, "label": "PER"}]}
SPANS = [{"example_id": f"e{n}", **IN_BYTES} for n in range(2)]
PIVOT_FILE = "afriqa/gold_passages/hau/gold_span_passages.afriqa.hau.en.test.json"
PIVOT = [
    {"answer_pivot": {"answer_start": [start], "text": ["Ann"]}, "context": "Here is Ann.", "id": str(start)}
    | {"question_lang": "Wa?", "question_translated": "Who?", "title": "Ann", "answer_lang": "Ann"}
    for start in (8, -1)
]
TOPICS = 'index_id\tcategory\ttext\n4\tsports\t"He said ""go"" and left."\n7\ttravel\tWe flew.\n'
NEWS = "category\theadline\ttext\turl\nsports\tA game\tThey won.\tx\nhealth\tA pill\tIt helped.\ty\n"
UNER = "# text = Ann came\n1\tAnn\tB-PER\t-\tx\n2\tcame\tO\t-\tx\n\n1\tBo\tB-OTH\t-\tx\n2\t#\t-\t-\tx\n\n"
REVIEWS = [{"text": "x", "label": "bad"}, {"text": "y", "label": "good"}]
MARKED = [{"text": f"Ann {n}", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for n in range(2)]
SENTENCES = [{"words": ["Ann", "came"], "tags": ["N", "V"]}, {"words": "Bob left", "tags": "N V"}]
ASKED = [{"question": "Who?", "context": c, "answer": c[:3], "answer_start": 0} for c in CONTEXTS]


def _own(make, suffix, content, **options):
    task = make("mine", files={"test": f"mine/test{suffix}"}, **options)
    return task, "test", "en", {f"mine/test{suffix}": content}


# By a name: task, split, language and files.
_SEEDS = {
    "mnli": ("mnli", "dev", "en", {"mnli/multinli_1.0_dev_matched.jsonl": jsonl(*NLI)}),
    "mnli glue": ("mnli", "dev", "en", {"mnli/dev_matched.tsv": table(NLI)}),
    "mnli translated": ("mnli@de", "train", "de", {"mnli/multinli.train.de.tsv": TRANSLATED}),
    "snli": ("snli", "dev", "en", {"snli/snli_1.0_dev.jsonl": jsonl(nli(9, "-"), *NLI)}),
    "anli": ("anli", "dev", "en", {**{f"anli/R{n}/dev.jsonl": jsonl(*ANLI) for n in (1, 2, 3)}, **NLI_FILES}),
    "qqp": ("qqp", "dev", "en", {"qqp/dev.tsv": QUESTION_PAIRS}),
    "xnli": ("xnli", "test", "de", {"xnli/test-de.tsv": "a\tb\tneutral\nc\td\tentailment\n"}),
    "xnli all": ("xnli", "test", "de", {"xnli/xnli.test.tsv": table(XNLI_ROWS)}),
    "xnli jsonl": ("xnli", "test", "de", {"xnli/xnli.test.jsonl": jsonl(*XNLI_ROWS)}),
    "pawsx": ("pawsx", "test", "de", {"pawsx/test-de.tsv": tsv(*PAIRS)}),
    "pawsx released": ("pawsx", "test", "de", {"pawsx/x-final/de/test_2k.tsv": RELEASED_PAIRS}),
    "xcopa": ("xcopa", "test", "et", {"xcopa/test-et.jsonl": jsonl(*map(copa, range(4)))}),
    "copa": ("copa", "dev", "en", {"copa/val.jsonl": jsonl(*map(copa, range(4)))}),
    "siqa": ("siqa", "dev", "en", {"siqa/socialIQa_v1.4_dev.jsonl": jsonl(*SOCIAL)}),
    "hellaswag": ("hellaswag", "dev", "en", {"hellaswag/hellaswag_val.jsonl": jsonl(*SCENES)}),
    "commonsenseqa": ("commonsenseqa", "dev", "en", {"commonsenseqa/dev_rand_split.jsonl": jsonl(*SENSE)}),
    "cosmosqa": ("cosmosqa", "dev", "en", {"cosmosqa/valid.csv": COSMOS}),
    "panx": ("panx", "test", "de", {"panx/test-de.tsv": ENTITIES}),
    "udpos": ("udpos", "test", "de", {"udpos/test-de.tsv": TAGGED}),
    "udpos conllu": ("udpos", "test", "de", {"udpos/UD_German-GSD/de_gsd-ud-test.conllu": CONLLU}),
    "ccg": ("ccg", "dev", "en", {"ccg/dev.tsv": CATEGORIES, "ccg/tags_to_id.json": '{"N": 0, "V": 1}'}),
    "squad": ("squad_v1", "dev", "en", {"squad/dev-v1.1.json": SQUAD}),
    "squad 2": ("squad_v2", "dev", "en", {"squad/dev-v2.0.json": SQUAD.replace('"answers"', POSSIBLE)}),
    "xquad": ("xquad", "test", "de", {"xquad/xquad.de.json": SQUAD}),
    "mlqa": ("mlqa", "test", "de", {"mlqa/MLQA_V1/test/test-context-de-question-de.json": SQUAD}),
    "tydiqa": ("tydiqa", "test", "fi", {"tydiqa/tydiqa-goldp-v1.1-dev.json": FINNISH}),
    "lareqa": ("lareqa", "test", "de", {f"lareqa/xquad-r/{one}.json": BROKEN_SQUAD for one in ("de", "en")}),
    "mewslix": ("mewslix", "test", "de", MEWSLIX),
    "mewslix labels": ("mewslix", "test", "de", {"mewslix/wikinews_labels/test-de.json": LINKS, **MEWSLIX}),
    "mewslix pairs": ("mewslix", "dev", "en", {"mewslix/wikipedia_pairs-dev.jsonl": jsonl(*LINKED)}),
    "tatoeba": ("tatoeba", "test", "de", {
        "tatoeba/de-en.gold": "1\n0\n2\n", "tatoeba/de-en.de": "eins\nzwei\ndrei\n", "tatoeba/de-en.en": "a\nb\nc\n"}),
    "tatoeba laser": ("tatoeba", "test", "de", {
        "tatoeba/tatoeba.deu-eng.deu": "eins\nzwei\n", "tatoeba/tatoeba.deu-eng.eng": "two\none\n"}),
    "bucc": ("bucc", "test", "de", {
        "bucc2018/de-en.test.gold": "de-1\ten-2\nde-2\ten-1\n",
        "bucc2018/de-en.test.de": "de-1\teins\nde-2\tzwei\n", "bucc2018/de-en.test.en": "en-1\ttwo\nen-2\tone\n"}),
    "sib200": ("sib200", "test", "sw", {"sib200/swh_Latn/test.tsv": TOPICS}),
    "belebele": ("belebele", "test", "de", {"belebele/deu_Latn.jsonl": jsonl(*BELEBELE)}),
    "masakhaner2": ("masakhaner2", "test", "ha", {"masakhaner2/hau/test.txt": "# O\nAnn B-PER\n\nBo B-PER\n"}),
    "masakhaner_x": ("masakhaner_x", "test", "yo", {"masakhaner_x/yo/test.jsonl": jsonl(*SPANS)}),
    "afriqa": ("afriqa", "test", "ha", {PIVOT_FILE: jsonl(*PIVOT)}),
    "uner": ("uner", "test", "nn", {"uner/UNER_Norwegian-NDT/nno_norne-ud-test.iob2": UNER}),
    "nusax": ("nusax", "test", "su", {"nusax/sundanese/test.csv": 'id,text,label\n9,"A\nb",neutral\n3,c,positive\n'}),
    "masakhanews": ("masakhanews", "test", "sw", {"masakhanews/swa/test.tsv": NEWS}),
    "xcsqa": ("xcsqa", "test", "ja", {"X-CSQA/jap/dev.jsonl": jsonl(*SENSE)}),
    "mlm": ("mlm", "train", "de", {"text/de.txt": "".join(f"Zeile {number}.\n" for number in range(5))}),
    "mlm pairs": ("mlm", "train", "de-en", {"text/de-en.tsv": "eins\tone\nzwei\ttwo\n"}),
    "own labels": _own(classify_task, ".jsonl", jsonl(*REVIEWS), labels=("bad", "good")),
    "own choices": _own(choice_task, ".csv", "prompt,choice1,choice2,label\nRain,wet,dry,0\nSun,wet,dry,1\n"),
    "own tags": _own(tag_task, ".jsonl", jsonl(*SENTENCES), labels=("N", "V")),
    "own answers": _own(span_task, ".jsonl", jsonl(*ASKED)),
    "own spans": _own(tag_task, ".jsonl", jsonl(*MARKED), labels=("B-PER", "I-PER", "O"), spans="spans"),
    "own pairs": _own(pair_task, ".tsv", tsv(("text", "positive"), ("one", "eins"), ("two", "zwei"))),
}  # fmt: skip
SEEDS = {
    name: Seed(get_task(task) if isinstance(task, str) else task, split, language, files)
    for name, (task, split, language, files) in _SEEDS.items()
}
