import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.errors import ConfigError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.span import find_max_context, locate, plan_windows
from stilts_jax.tasks.spec import SpanExample


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
        cut = {"truncation": "only_second", "max_length": 60, "stride": overlap}
        found = plain(example.question, example.context, **cut, return_overflowing_tokens=True)
        for window in found["input_ids"]:
            assert [features.columns[one][row].tolist() for one in ("example", "tokens")] == [index, window]
            row += 1
    assert row == len(features) > len(examples)
    with pytest.raises(ConfigError, match="no room") as caught:
        build_features("span", {"en": examples}, tokenizer, FeatureSettings(max_length=12), training=False)
    assert any(one.question[:60] in caught.value.where for one in examples) and "raise" in caught.value.fix


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
        names = ("tokens", "char_start", "char_end", "max_context")
        tokens, begin, end, best = (columns[name][row].tolist() for name in names)
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
    # Each token of a context has its best window once.
    assert all(sorted(best_of[i]) == sorted(whole[e.context]) for i, e in enumerate(examples))
    assert not answered & {i for i, e in enumerate(examples) if e.impossible}
    if stride == 7:  # windows overlap by more than an answer's length
        assert answered == {i for i, e in enumerate(examples) if e.answers}


# Whole graphemes: a mark without a letter in front of it is lost in normalization.
GRAPHEMES = [*"ab é中国บ🙂,1½\t\u200b\u00a0", "ครั", "e\u0301", "น้ำ"]
TEXT = st.lists(st.sampled_from(GRAPHEMES), max_size=15).map("".join)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_every_subword_stands_inside_its_text_and_never_on_a_space(tokenizer, texts):
    located, text_starts = locate(texts, tokenizer.encode(texts, characters=True), tokenizer)
    assert (np.diff(located.starts) >= 0).all() and (np.diff(located.ends) >= 0).all()
    assert (located.starts <= located.ends).all()
    for index, text in enumerate(texts):
        span = slice(located.offsets[index], located.offsets[index + 1])
        assert (located.starts[span] >= text_starts[index]).all()
        assert (located.ends[span] <= text_starts[index + 1]).all()
        # No letter is lost: what no subword stands for is a space, or nothing one can see.
        covered, begin = np.zeros(len(text), bool), text_starts[index]
        for a, b in zip(located.starts[span] - begin, located.ends[span] - begin):
            assert text[a:b] == text[a:b].strip()
            covered[a:b] = True
        assert all(seen or letter in " \t\u200b\u00a0" for seen, letter in zip(covered, text, strict=True))


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
    windows = owner, begins, sizes = plan_windows(lengths, capacity, stride)
    by_window = np.split(find_max_context(windows, lengths), np.cumsum(sizes)[:-1])
    for number, (length, room) in enumerate(documents):
        mine = np.flatnonzero(owner == number)
        spans = [(int(begins[w]), int(sizes[w])) for w in mine]
        assert spans[0][0] == 0 and sum(spans[-1]) == length
        assert all(size <= room for _, size in spans)
        assert [start for start, _ in spans] == [min(stride, room) * i for i in range(len(spans))]
        assert all(sum(spans[i]) < length for i in range(len(spans) - 1))  # none behind the one that ends it
        for position in range(length):
            inside = [i for i, (start, size) in enumerate(spans) if 0 <= position - start < size]
            chosen = [i for i in inside if by_window[mine[i]][position - spans[i][0]]]
            assert chosen == [bert_max_context(spans, position)]
