import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.features.windows import find_max_context, plan_windows

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
