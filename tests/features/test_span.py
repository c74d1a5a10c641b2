from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.span import find_max_context, locate, plan_windows
from stilts_jax.tasks.spec import SpanExample

REAL = [("xquad", "test"), ("mlqa", "dev"), ("squad_v2", "dev")]


def make_examples(lines):
    """Questions about contexts of several scripts, with an answer somewhere in each."""
    examples = []
    for number in range(len(lines) - 8):
        context = " ".join(lines[number % 20 : number % 20 + 6])
        begin = (number * 37) % (len(context) - 12)
        text = context[begin : begin + 3 + number % 9].strip()
        answers = () if number % 7 == 0 else ((text, context.index(text, begin)),)
        examples.append(SpanExample(str(number), lines[number], context, answers, impossible=not answers))
    return examples


def test_windows_are_those_of_transformers(tokenizer, plain, lines):
    sizes = FeatureSettings(max_length=60, max_query_length=200, stride=20)
    examples = [e for e in make_examples(lines) if len(tokenizer.encode([e.question]).ids) < 30]
    features = build_features("span", {"en": examples}, tokenizer, sizes, training=False)
    row = 0
    for index, example in enumerate(examples):
        query = len(tokenizer.encode([example.question]).ids)
        overlap = max(60 - query - 4 - 20, 0)  # theirs is what windows share, ours what they move on by
        expected = plain(
            example.question,
            example.context,
            truncation="only_second",
            max_length=60,
            stride=overlap,
            return_overflowing_tokens=True,
        )["input_ids"]
        for window in expected:
            assert features.columns["example"][row] == index
            assert features.columns["tokens"][row].tolist() == window
            row += 1
    assert row == len(features) > len(examples)


@pytest.mark.parametrize("stride", [7, 500])
def test_columns_say_where_tokens_and_answers_are(tokenizer, lines, stride):
    sizes = FeatureSettings(max_length=50, max_query_length=12, stride=stride)
    examples = make_examples(lines)
    columns = build_features("span", {"en": examples}, tokenizer, sizes, training=False).columns
    whole = {e.context: tokenizer.encode([e.context]).ids.tolist() for e in examples}
    best_of: dict[int, list[int]] = {}
    answered = set()
    for row, index in enumerate(columns["example"].tolist()):
        example = examples[index]
        query = tokenizer.encode([example.question]).ids[:12].tolist()
        tokens, begin, end, best = (
            columns[name][row].tolist() for name in ("tokens", "char_start", "char_end", "max_context")
        )
        first = len(query) + 3
        assert len(tokens) == len(begin) == len(end) == len(best) <= 50
        assert tokens[:first] == [0, *query, 2, 2] and tokens[-1] == 2
        assert begin[:first] == end[:first] == [-1] * first and (begin[-1], end[-1]) == (-1, -1)
        assert not any(best[:first]) and not best[-1]
        for place in range(first, len(tokens) - 1):
            assert 0 <= begin[place] <= end[place] <= len(example.context)
        best_of.setdefault(index, []).extend(t for t, chosen in zip(tokens, best) if chosen)
        a, b = int(columns["start"][row]), int(columns["end"][row])
        if (a, b) == (0, 0):
            continue
        answered.add(index)
        text, start = example.answers[0]
        # The smallest stretch of subwords that holds the answer, and no other.
        assert begin[a] <= start < end[a] and begin[b] < start + len(text) <= end[b]
        assert first <= a <= b < len(tokens) - 1
    for index, example in enumerate(examples):  # each token of a context has its best window once
        assert (
            best_of[index] == whole[example.context]
            if stride == 500
            else len(best_of[index]) == len(whole[example.context])
        )
    assert not answered & {i for i, e in enumerate(examples) if e.impossible}
    if stride == 7:  # windows overlap by more than an answer's length
        assert answered == {i for i, e in enumerate(examples) if e.answers}


def test_training_rows_carry_only_what_training_reads(tokenizer, lines):
    examples = {"en": make_examples(lines)}
    sizes = FeatureSettings(64, 16, 32)
    trained = build_features("span", examples, tokenizer, sizes, training=True).columns
    predicted = build_features("span", examples, tokenizer, sizes, training=False).columns
    assert set(trained) == {"example", "language", "tokens", "start", "end"}
    for name in ("example", "start", "end"):
        np.testing.assert_array_equal(trained[name], predicted[name])


def test_a_context_is_tokenized_once_for_all_its_questions(tokenizer, lines, encoded_texts):
    contexts = [lines[50 + i % 2] for i in range(9)]
    examples = [SpanExample(str(i), lines[i], text, ((text[:2], 0),)) for i, text in enumerate(contexts)]
    build_features("span", {"en": examples}, tokenizer, FeatureSettings(), training=True)
    assert sorted(encoded_texts) == sorted({*lines[:9], *contexts})


def test_odd_contexts(tokenizer):
    examples = [
        SpanExample("empty", "a?", "", (), impossible=True),
        SpanExample("blank", "", " \n ", (), impossible=True),
        SpanExample("surrogate", "a", "中\ud800国 a", (("a", 4),)),
    ]
    columns = build_features("span", {"en": examples}, tokenizer, FeatureSettings(), training=True).columns
    assert columns["example"].tolist() == [0, 1, 2] and columns["tokens"][1].tolist() == [0, 2, 2, 2]
    assert columns["start"].tolist()[:2] == [0, 0] and columns["start"][2] > 0


def test_what_cannot_be_trained_on(tokenizer):
    with pytest.raises(DataError, match="gold"):
        build_features(
            "span", {"en": [SpanExample("1", "a", "b")]}, tokenizer, FeatureSettings(), training=True
        )
    long = [SpanExample("1", "中国 " * 30, "b", (("b", 0),))]
    with pytest.raises(ConfigError, match="leaves no room"):
        build_features("span", {"en": long}, tokenizer, FeatureSettings(16, 64), training=True)


@pytest.mark.real
@pytest.mark.parametrize(("name", "split"), REAL)
def test_every_real_answer_is_sliced_from_some_window(name, split, real_root, real_tokenizer):
    from stilts_jax.tasks import get_task
    from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples

    task, source = get_task(name), DataSource(real_root)
    languages = available_languages(task, split, source)
    # Each answer of each question by itself.
    examples = {
        language: [
            replace(each, answers=(answer,))
            for each in read_examples(task, split, language, source)
            for answer in each.answers
        ]
        for language in languages
    }
    sizes = FeatureSettings(384, 64, 128)
    columns = build_features("span", examples, real_tokenizer, sizes, training=False).columns
    everything = [(language, each) for language in languages for each in examples[language]]
    exact: dict[int, bool] = {}
    for row in np.flatnonzero(columns["start"]).tolist():
        index = int(columns["example"][row])
        _, example = everything[index]
        a, b = int(columns["start"][row]), int(columns["end"][row])
        begin, end = columns["char_start"][row], columns["char_end"][row]
        text, start = example.answers[0]
        text = text.rstrip("\u200b")  # no subword covers a space of no width
        sliced = example.context[begin[a] : end[b]]
        exact[index] = sliced == text
        # Where a subword goes beyond the answer's border, one subword less would lose a part of the answer.
        assert text in sliced and begin[a] <= start < end[a] and begin[b] < start + len(text) <= end[b]
    assert sorted(exact) == list(range(len(everything)))
    for language in languages:
        hits = [exact[index] for index, (name, _) in enumerate(everything) if name == language]
        # Arabic writes "and", "in" and "the" together with the word, so that a subword more often begins before it.
        assert sum(hits) > (0.92 if language == "ar" else 0.94) * len(hits) > 0, language


# Whole graphemes: a mark without a letter in front of it is lost in normalization.
GRAPHEMES = [*"ab é中国บ🙂,1½\t\u200b\u00a0", "ครั", "e\u0301", "น้ำ"]
TEXT = st.lists(st.sampled_from(GRAPHEMES), max_size=15).map("".join)


def place(tokenizer, texts):
    return locate(texts, tokenizer.encode(texts, characters=True), tokenizer)


def slices(located, texts, index):
    """The pieces of text that the subwords of one text stand for."""
    span = slice(located.offsets[index], located.offsets[index + 1])
    begin = located.text_starts[index]
    return [texts[index][a - begin : b - begin] for a, b in zip(located.starts[span], located.ends[span])]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_every_subword_stands_inside_its_text_and_never_on_a_space(tokenizer, texts):
    located = place(tokenizer, texts)
    assert (np.diff(located.starts) >= 0).all() and (np.diff(located.ends) >= 0).all()
    assert (located.starts <= located.ends).all()
    for index, text in enumerate(texts):
        span = slice(located.offsets[index], located.offsets[index + 1])
        assert (located.starts[span] >= located.text_starts[index]).all()
        assert (located.ends[span] <= located.text_starts[index + 1]).all()
        pieces = slices(located, texts, index)
        assert all(piece == piece.strip() for piece in pieces)
        # No letter is lost: what no subword stands for is a space, or nothing one can see.
        covered = np.zeros(len(text), bool)
        for a, b in zip(located.starts[span], located.ends[span]):
            covered[a - located.text_starts[index] : b - located.text_starts[index]] = True
        for number, character in enumerate(text):
            assert covered[number] or character in " \t\u200b\u00a0"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("北京 中国", "中国"),
        ("ครับ  กรุงเทพ", "กรุงเทพ"),
        ("\u200bمدينة كتاب", "كتاب"),
        ("a e\u0301te\u0301", "e\u0301te\u0301"),
        ("a അവന്\u200d", "അവന്\u200d"),
    ],
)
def test_the_last_word_is_sliced_exactly(tokenizer, text, word):
    located = place(tokenizer, [text])
    first = np.searchsorted(located.ends, text.rindex(word), side="right")
    assert text[located.starts[first] : located.ends[-1]] == word


def test_a_lone_word_beginning_claims_no_character(tokenizer):
    located = place(tokenizer, ["a 🙂"])
    lone = np.flatnonzero(located.ids == tokenizer.space_id)
    assert len(lone) and (located.starts[lone] == located.ends[lone]).all()


DOCUMENTS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=4)


def bert_max_context(spans, position):
    """The rule as BERT's run_squad states it; returns the number of the window."""
    best, best_score = None, None
    for number, (start, length) in enumerate(spans):
        if not start <= position < start + length:
            continue
        score = min(position - start, start + length - 1 - position) + 0.01 * length
        if best_score is None or score > best_score + 1e-9:
            best, best_score = number, score
    return best


@settings(max_examples=100, deadline=None)
@given(documents=DOCUMENTS, stride=st.integers(1, 30))
def test_windows_cover_documents_and_each_token_has_one_best_window(documents, stride):
    lengths, capacity = np.array(documents, np.int64).T
    windows = plan_windows(lengths, capacity, stride)
    best = find_max_context(windows, lengths)
    borders = np.cumsum(windows.length)[:-1]
    by_window = np.split(best, borders)
    for number, (length, room) in enumerate(documents):
        mine = np.flatnonzero(windows.document == number)
        spans = [(int(windows.start[w]), int(windows.length[w])) for w in mine]
        assert spans[0][0] == 0 and sum(spans[-1]) == length
        assert all(size <= room for _, size in spans)
        step = min(stride, room)
        assert [start for start, _ in spans] == [step * i for i in range(len(spans))]
        assert all(sum(spans[i]) < length for i in range(len(spans) - 1))  # none behind the one that ends it
        for position in range(length):
            chosen = [
                i
                for i, w in enumerate(mine)
                if 0 <= position - spans[i][0] < spans[i][1] and by_window[w][position - spans[i][0]]
            ]
            assert chosen == [bert_max_context(spans, position)]
