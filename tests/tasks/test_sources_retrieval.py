"""Retrieval evaluations: queries, candidates and gold, from blanked and original files."""

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.inventory import format_examples, read_part
from stilts_jax.tasks.sources.read import available_languages, read_examples, read_retrieval
from stilts_jax.tasks.sources.retrieval import find_sentences


def test_tatoeba_asks_in_english_in_both_layouts(write, source):
    task = get_task("tatoeba")
    # LASER's order; XTREME sorts English by code point and keeps the other side.
    english, swahili = ["Sun", "Moon", "a moon"], ["jua", "mwezi", "mwezi mmoja"]
    write("tatoeba/tatoeba.swh-eng.eng", "\n".join(english) + "\n")
    write("tatoeba/tatoeba.swh-eng.swh", "\n".join(swahili) + "\n")
    released = read_retrieval(task, "test", "sw", source)
    write("tatoeba/sw-en.en", "Moon\nSun\na moon\n")
    write("tatoeba/sw-en.sw", "\n".join(swahili) + "\n")
    assert read_retrieval(task, "test", "sw", source).gold is None
    write("tatoeba/sw-en.gold", "1\n0\n2\n")
    with_gold = read_retrieval(task, "test", "sw", source)
    assert with_gold == released
    texts = {candidate.id: candidate.text for candidate in with_gold.candidates}
    found = {query.text: texts[with_gold.gold[query.id][0]] for query in with_gold.queries}
    assert found == dict(zip(english, swahili))


@pytest.mark.parametrize("stem", ["bucc2018/de-en.test", "bucc2018/de-en/de-en.training"])
def test_buccs_test_set_is_its_original_training_set(write, source, stem):
    task = get_task("bucc")
    write(f"{stem}.de", "de-1\tja\nde-2\tja\n")
    write(f"{stem}.en", "en-9\tyes\nen-7\tyes\n")
    assert read_retrieval(task, "test", "de", source).gold is None
    write(f"{stem}.gold", "de-1\ten-9\nde-1\ten-7\n")
    pool = read_retrieval(task, "test", "de", source)
    assert pool.gold == {"de-1": ("en-9", "en-7")}
    assert [query.text for query in pool.queries] == ["ja", "ja"]  # what to do about it is the miner's choice
    assert read_part(task, "test", "de", source)[1] == 2  # counted as the release counts: pairs
    assert "text: ja\n  positive: yes | yes\n" in format_examples(task, source)
    write(f"{stem}.gold", "de-1\ten-8\n")
    with pytest.raises(DataError, match="query and of a candidate"):
        read_retrieval(task, "test", "de", source)


def test_lareqa_ranks_one_pool_of_all_languages(write, source):
    task = get_task("lareqa")
    for language, sentences in (("en", ["One.", "Two\nlines."]), ("de", ["Eins.", "Zwei."])):
        text, answer = " ".join(sentences), sentences[1][:3]
        breaks = [[text.index(one), text.index(one) + len(one)] for one in sentences]
        answers = [{"text": answer, "answer_start": text.index(answer)}]
        asked = {"sentence_breaks": breaks, "qas": [{"id": "q1", "question": "?", "answers": answers}]}
        write(f"lareqa/xquad-r/{language}.json", {"data": [{"paragraphs": [{"context": text, **asked}]}]})
    german, english = (read_retrieval(task, "test", language, source) for language in ("de", "en"))
    assert german.candidates is english.candidates and len(english.candidates) == 4
    texts = {candidate.id: candidate.text for candidate in english.candidates}
    # Sentence and paragraph are one text without a separator, and line ends go.
    assert [texts[name] for name in english.gold["q1_en"]] == ["Zwei.Eins. Zwei.", "Twolines.One. Twolines."]
    assert german.gold["q1_de"] == english.gold["q1_en"]
    assert available_languages(task, "test", source) == ("en", "de")
    paragraph = {"context": "It was Dr. No. He left.", "qas": [{"id": "s", "question": "Who?"}]}
    paragraph["qas"][0]["answers"] = [{"text": "He", "answer_start": 15}]
    write("squad/train-v1.1.json", {"data": [{"paragraphs": [paragraph]}]})
    (example,) = read_examples(task, "train", "en", source)
    assert (example.text, example.positive) == ("Who?", "He left.It was Dr. No. He left.")


def test_mewslix_marks_the_mention_in_its_sentence(write, source):
    task, text = get_task("mewslix"), "First. The {old} Paris fell. Last."
    spans = [{"start": 0, "end": 6}, {"start": 7, "end": 28}, {"start": 29, "end": 34}]
    span = {"start": 17, "end": 22, "text": "Paris"}
    mention = {"example_id": "m1", "mention_span": span, "entity_id": "Q90"}
    context = {"text": text, "sentence_spans": spans, "language": "de"}
    described = [{"start": 0, "end": 7}, {"start": 9, "end": 19}]
    entity = {"entity_id": "Q90", "description": "A city.  In France.", "sentence_spans": described}
    pair = {"contextual_mention": {"context": context, "mention": mention}, "entity": entity}
    write("mewslix/wikipedia_pairs-train.jsonl", [pair])
    (example,) = read_examples(task, "train", "en", source)
    assert example.text == "Paris: The (old) { Paris } fell." and example.positive == "A city. In France."
    write("mewslix/candidate_set_entities.jsonl", [entity])
    blanked = {"context": context, "mentions": [{**mention, "entity_id": ""}]}
    write("mewslix/wikinews_mentions/test-de.jsonl", [blanked])
    assert read_retrieval(task, "test", "de", source).gold is None
    write("mewslix/wikinews_labels/test-de.json", {"m1": ["Q90"]})
    pool = read_retrieval(task, "test", "de", source)
    assert pool.gold == {"m1": ("Q90",)} and [entity.id for entity in pool.candidates] == ["Q90"]
    write("mewslix/candidate_set_entities.jsonl", [entity, entity])
    pool = read_retrieval(task, "test", "de", source)  # an entity that is described in two languages
    assert [entity.id for entity in pool.candidates] == ["Q90", "Q90"]
    blanked["mentions"].append({**mention, "example_id": "m2"})
    write("mewslix/wikinews_mentions/test-de.jsonl", [blanked])
    write("mewslix/wikinews_labels/test-de.json", {"m1": ["Q90"], "m2": []})
    with pytest.raises(DataError, match="'m2' is blank"):
        read_retrieval(task, "test", "de", source)


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We left!", '"Why?" he asked.', "Nobody knew."],
        ["Mr. A. B. Smith met Dr. Jones on Jan. 5.", "They spoke of e.g. Kant."],
        ["It was built in 1900.[12]", "The architect (a friend of J. R. Hope.)", "He died."],
        ["See No. 5 of vol. 2.", "He was Dr. No.", "He left."],
        ["The U.S. Army came.", "In the U.S.", "However, it left."],
    ],
)
def test_sentences_end_where_people_end_them(sentences):
    text = "  " + " ".join(sentences) + " "
    assert [text[start:end] for start, end in find_sentences(text)] == sentences
