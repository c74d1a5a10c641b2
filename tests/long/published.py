"""Hub data sets as they are published: file names, features and two rows of each, written from the sources named.

The features, split sizes and the first rows of several data sets are those of the dataset cards at one commit of
github.com/huggingface/datasets. File names are those of huggingface.co where a commit stands in brackets; the others
follow the same convention and were not seen. None of it is made from what the package expects. ``features`` has one
``name:kind`` a column: kinds are those of the cards, class names are joined by ``|``, ``*`` stands for a list, and a
dot for a column inside a column.
"""

from typing import NamedTuple

from tests.tasks.hub_server import MAIN, NLI, PARQUET

CARD = "huggingface/datasets@040102f100964a33fd334e2695f1c493fa6b92db datasets/{}/README.md"
CONVERTED = "refs/convert/parquet"


class Published(NamedTuple):
    """One file. ``source`` is where the features are from; empty where no published list was found (a guess)."""

    task: str
    split: str
    language: str
    repository: str
    branch: str
    file: str
    features: str
    rows: list[tuple]
    read_as: tuple  # the fields of an example behind its id, which one of the rows must become
    count: int | None  # of the split (in the language) as the card has them; None where it counts other rows
    source: str


TEXTS, STARTS = "answers.text:string*", "answers.answer_start:int32*"
SQUAD = f"id:string title:string context:string question:string {TEXTS} {STARTS}"
XTREME_SQUAD = SQUAD.replace(f"{TEXTS} {STARTS}", f"{STARTS} {TEXTS}")
XQUAD = SQUAD.replace("title:string ", "")
COPA = "premise:string choice1:string choice2:string question:string"
ENTITIES = "O|B-PER|I-PER|B-ORG|I-ORG|B-LOC|I-LOC"
PANX = f"tokens:string* ner_tags:{ENTITIES}* langs:string*"
SIQA = "context:string question:string answerA:string answerB:string answerC:string label:string"
ANSWERS = " ".join(f"answer{index}:string" for index in range(4))
TEXT = "Ann met Bo. Ann left."
ABOUT_SYDNEY = ("Sydney walked past a homeless woman.", "How would you describe Sydney?")
SYDNEY = (*ABOUT_SYDNEY, "sympathetic", "helpless", "cold", "1")

PUBLISHED = [
    # nyu-mll/glue [a3f3ab75]
    Published("mnli", "dev", "en", "nyu-mll/glue", MAIN, f"mnli/validation_matched{PARQUET}", f"{NLI} idx:int32",
        [("a", "b", 2, 0), ("c", "d", 0, 1)], ("a", "b", 0), 9815, CARD.format("glue")),
    Published("qqp", "dev", "en", "nyu-mll/glue", MAIN, f"qqp/validation{PARQUET}",
        "question1:string question2:string label:not_duplicate|duplicate idx:int32",
        [("a?", "b?", 1, 0), ("c?", "d?", 0, 1)], ("a?", "b?", 1), 40430, CARD.format("glue")),
    # Label -1 stands for "no majority"; the card counts those rows too.
    Published("snli", "dev", "en", "stanfordnlp/snli", MAIN, f"plain_text/validation{PARQUET}", NLI,
        [("a", "b", -1), ("c", "d", 0)], ("c", "d", 1), None, CARD.format("snli")),
    *(
        Published("anli", "dev", "en", "facebook/anli", MAIN, f"plain_text/dev_r{number}{PARQUET}",
            f"uid:string {NLI} reason:string", [(f"u{number}", f"r{number}", "b", 1, ""), ("v", "c", "d", 2, "")],
            (f"r{number}", "b", 2), None, CARD.format("anli"))
        for number in (1, 2, 3)
    ),
    Published("squad_v1", "dev", "en", "rajpurkar/squad", MAIN, f"plain_text/validation{PARQUET}", SQUAD,
        [("1", "t", TEXT, "Who?", ["Ann", "Bo"], [0, 8]), ("2", "t", TEXT, "Who left?", ["Ann"], [12])],
        ("Who?", TEXT, (("Ann", 0), ("Bo", 8)), False), 10570, CARD.format("squad")),
    Published("squad_v2", "dev", "en", "rajpurkar/squad_v2", MAIN, f"squad_v2/validation{PARQUET}", SQUAD,
        [("1", "t", TEXT, "Why?", [], []), ("2", "t", TEXT, "Who?", ["Bo"], [8])],
        ("Why?", TEXT, (), True), 11873, CARD.format("squad_v2")),
    # A script on main; ActivityNet and WikiHow number their rows apart, so that `ind` is not unique.
    Published("hellaswag", "dev", "en", "Rowan/hellaswag", CONVERTED, "default/validation/0000.parquet",
        "ind:int32 activity_label:string ctx_a:string ctx_b:string ctx:string endings:string* source_id:string "
        "split:string split_type:string label:string",
        [(4, "x", "A.", "then", "A. then", ["c", "d", "e", "f"], "activitynet~v_1", "val", "indomain", "3"),
            (4, "y", "B.", "", "B.", ["g", "h", "i", "j"], "wikihow~4", "val", "zeroshot", "0")],
        ("A.", ("then c", "then d", "then e", "then f"), 3), 10042,
        "huggingface/datasets@0129d93b38026ee51eb079480e77fd8202f6091a datasets/hellaswag/README.md"),
    Published("cosmosqa", "dev", "en", "allenai/cosmos_qa", CONVERTED, "default/validation/0000.parquet",
        f"id:string context:string question:string {ANSWERS} label:int32",
        [("3BFF##1", "Do i need it ?", "Why ask ?", *"abcd", 1), ("3BFF##2", "No .", "Why not ?", *"efgh", 3)],
        ("Do i need it ? Why ask ?", tuple("abcd"), 1), 2985, CARD.format("cosmos_qa")),
    Published("commonsenseqa", "dev", "en", "tau/commonsense_qa", MAIN, f"data/validation{PARQUET}",
        "id:string question:string question_concept:string choices.label:string* choices.text:string* "
        "answerKey:string",
        [("075e", "To change?", "punishing", list("ABCDE"), list("vwxyz"), "D"),
            ("1afa", "To keep?", "holding", list("ABCDE"), list("vwxyz"), "A")],
        ("To change?", tuple("vwxyz"), 3), 1221, CARD.format("commonsense_qa")),
    # File names [54c6a1f8]; its card has no list of features that could be found.
    Published("siqa", "dev", "en", "lighteval/siqa", MAIN,
        "data/validation-00000-of-00001-90bb85eab85fcfa8.parquet", SIQA,
        [SYDNEY, (*SYDNEY[:5], "3")], (f"{SYDNEY[0]} {SYDNEY[1]}", SYDNEY[2:5], 0), 1954, ""),
    Published("siqa", "dev", "en", "allenai/social_i_qa", CONVERTED, "default/validation/0000.parquet", SIQA,
        [SYDNEY, (*SYDNEY[:5], "3")], (f"{SYDNEY[0]} {SYDNEY[1]}", SYDNEY[2:5], 0), 1954,
        CARD.format("social_i_qa")),
    Published("copa", "dev", "en", "aps/super_glue", MAIN, f"copa/validation{PARQUET}",
        f"{COPA} idx:int32 label:choice1|choice2",
        [("A.", "x", "y", "cause", 0, 1), ("B.", "x", "y", "effect", 1, 0)],
        ("A. What was the cause?", ("x", "y"), 1), 100, CARD.format("super_glue")),
    # facebook/xnli [b8dd5d78]
    Published("xnli", "test", "de", "facebook/xnli", MAIN, f"de/test{PARQUET}", NLI,
        [("a", "b", 0), ("c", "d", 2)], ("c", "d", 0), 5010, CARD.format("xnli")),
    # cambridgeltl/xcopa [042f789]
    Published("xcopa", "dev", "et", "cambridgeltl/xcopa", MAIN, f"et/validation{PARQUET}",
        f"{COPA} label:int32 idx:int32 changed:bool",
        [("Putukas.", "Ta kallas.", "Ta kaotas.", "effect", 1, 1, False), ("B.", "x", "y", "cause", 0, 2, True)],
        ("Putukas. What was the effect?", ("Ta kallas.", "Ta kaotas."), 1), 100, CARD.format("xcopa")),
    # Rows without a translation are "NS"; the card counts them too.
    Published("pawsx", "test", "de", "google-research-datasets/paws-x", MAIN, f"de/test{PARQUET}",
        "id:int32 sentence1:string sentence2:string label:0|1",
        [(1, "NS", "b", 0), (2, "c", "d", 1)], ("NS", "b", 0), 2_000, CARD.format("paws-x")),
    # google/xtreme [8609d29e]
    Published("panx", "test", "en", "google/xtreme", MAIN, f"PAN-X.en/test{PARQUET}", PANX,
        [(["in", "Ulm"], [0, 5], ["en", "en"]), (["Bo"], [1], ["en"])], (("in", "Ulm"), (6, 0)), 10000,
        CARD.format("xtreme")),
    Published("panx", "test", "az", "unimelb-nlp/wikiann", MAIN, f"az/test{PARQUET}", f"{PANX} spans:string*",
        [(["Bakı"], [5], ["az"], ["LOC: Bakı"]), (["Bo"], [1], ["az"], ["PER: Bo"])], (("Bakı",), (0,)), None,
        CARD.format("wikiann")),
    # The conversion cut the space before contexts; offsets still count it.
    Published("xquad", "test", "de", "google/xquad", MAIN, f"xquad.de/validation{PARQUET}", XQUAD,
        [("1", TEXT, "Wer?", ["Bo"], [10]), ("2", TEXT, "Wer ging?", ["Ann"], [12])],
        ("Wer?", TEXT, (("Bo", 8),), False), 1190, CARD.format("xquad")),
    Published("xquad", "test", "de", "google/xtreme", MAIN, f"XQuAD.de/validation{PARQUET}",
        XTREME_SQUAD.replace("title:string ", ""),
        [("1", TEXT, "Wer?", [8], ["Bo"]), ("2", TEXT, "Wer ging?", [12], ["Ann"])],
        ("Wer?", TEXT, (("Bo", 8),), False), 1190, CARD.format("xtreme")),
    Published("mlqa", "test", "es", "google/xtreme", MAIN, f"MLQA.es.es/test{PARQUET}", XTREME_SQUAD,
        [("1", "t", TEXT, "Wer?", [8], ["Bo"]), ("2", "t", TEXT, "Wo?", [0], ["Ann"])],
        ("Wer?", TEXT, (("Bo", 8),), False), 5253, CARD.format("xtreme")),
    *(
        Published("tydiqa", "test", "te", repository, MAIN, f"{config}/validation{PARQUET}", features,
            rows, ("?", TEXT, (("Bo", 8),), False), None, CARD.format(card))
        for repository, config, features, card, rows in (
            ("google-research-datasets/tydiqa", "secondary_task", SQUAD, "tydiqa",
                [("arabic-1-0", "t", TEXT, "?", ["Ann"], [0]), ("telugu-1-0", "t", TEXT, "?", ["Bo"], [8])]),
            ("google/xtreme", "tydiqa", XTREME_SQUAD, "xtreme",
                [("arabic-1-0", "t", TEXT, "?", [0], ["Ann"]), ("telugu-1-0", "t", TEXT, "?", [8], ["Bo"])]),
        )
    ),
    # No published list of features was found for these two.
    Published("sib200", "test", "sw", "Davlan/sib200", CONVERTED, "swh_Latn/test/0000.parquet",
        "index_id:int64 category:string text:string",
        [(4, "sports", "Alishinda."), (7, "travel", "Tuliruka.")], ("Alishinda.", None, 3), 204, ""),
    Published("belebele", "test", "de", "facebook/belebele", CONVERTED, "deu_Latn/test/0000.parquet",
        "link:string question_number:int64 flores_passage:string question:string mc_answer1:string mc_answer2:string "
        "mc_answer3:string mc_answer4:string correct_answer_num:string dialect:string ds:string",
        [("x", n, "Es regnet.", "Wo?", *"abcd", str(n), "deu_Latn", "2023") for n in (1, 4)],
        ("Es regnet. Wo?", tuple("abcd"), 3), 900, ""),
    Published("tatoeba", "test", "sw", "google/xtreme", MAIN, f"tatoeba.swh/validation{PARQUET}",
        "source_sentence:string target_sentence:string source_lang:string target_lang:string",
        [("jua\n", "Sun\n", "swh", "eng"), ("mwezi\n", "Moon\n", "swh", "eng")], ("Moon", None), None,
        CARD.format("xtreme")),
]  # fmt: skip
