"""Mining of two files: what is written, and going on after a crash."""

import errno
import os
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from stilts_jax.checkpoint import lock_run
from stilts_jax.errors import DataError, LockedError, explain
from stilts_jax.evaluation.retrieval import mine_files, pair_up
from stilts_jax.evaluation.search import find_neighbours, normalise
from stilts_jax.progress import SILENT


@dataclass
class Letters:
    """Embeds a text by counting letters; may die on the way."""

    fingerprint: str = "letters"
    calls: list[int] = field(default_factory=list)
    dies_after: int = 10**9
    mesh, progress = None, SILENT
    model = SimpleNamespace(encoder=SimpleNamespace(hidden_size=26))

    def __call__(self, texts):
        if len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(len(texts))
        counts = [[text.lower().count(chr(97 + c)) for c in range(26)] for text in texts]
        return np.array(counts, np.float32) + 0.1


def write(path, lines):
    path.write_bytes("\n".join(lines).encode() + b"\n")
    return path


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghijklmnop"), 12)) for _ in range(60)]
    source = write(tmp_path / "a.txt", [*words[:50], "", "   ", words[3]])
    return source, write(tmp_path / "b.txt", [word[::-1].upper() for word in words[10:]]), words


def vectors_of(out, side="source"):
    return list(out.with_name(f"{out.name}.work").glob(f"{side}-*.npy"))


def read(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_pairs_best_first(tmp_path, files):
    source, target, words = files
    out = tmp_path / "pairs.tsv"
    count, rows = mine_files(Letters(), source, target, out, chunk=16), read(out)
    assert len(rows) == count
    scores = [float(score) for score, _, _ in rows]
    assert scores == sorted(scores, reverse=True)
    sides = (normalise(Letters()(some)) for some in (words[:50], words[10:]))
    expected = pair_up(*find_neighbours(*sides, 4))
    targets = [word[::-1].upper() for word in words[10:]]
    assert [(x, y) for _, x, y in rows] == [(words[i], targets[j]) for i, j, _ in expected]
    assert not (tmp_path / "pairs.tsv.work").exists()
    strict = mine_files(Letters(), source, target, out, threshold=scores[4] - 1e-5, keep_embeddings=True)
    assert read(out) == rows[:strict] and strict >= 5 and vectors_of(out)
    tabbed = write(tmp_path / "c.txt", ["one two", "one\ttwo"])  # a tab becomes a space
    assert mine_files(Letters(), tabbed, tabbed, out) == 1


def test_a_killed_run_goes_on(tmp_path, files):
    source, target, _ = files
    whole, out = tmp_path / "whole.tsv", tmp_path / "pairs.tsv"
    mine_files(Letters(), source, target, whole, chunk=16)
    for dies_after in (2, 3, 0):  # in the source, in the target, at once
        with pytest.raises(KeyboardInterrupt):
            mine_files(Letters(dies_after=dies_after), source, target, out, chunk=16)
        assert not out.exists()
    last = Letters()
    with lock_run(vectors_of(out)[0].parent), pytest.raises(LockedError, match="Another process"):
        mine_files(last, source, target, out, chunk=16)  # typed twice at once
    mine_files(last, source, target, out, chunk=16)
    assert last.calls == [16, 16, 2]  # all of the source and 16 lines of the target were done
    assert out.read_bytes() == whole.read_bytes()


def test_embeddings_of_another_encoder_or_text_are_not_used(tmp_path, files):
    source, target, _ = files
    out = tmp_path / "pairs.tsv"
    mine_files(Letters(), source, target, out, keep_embeddings=True)
    again = Letters()
    mine_files(again, source, target, out, keep_embeddings=True)
    assert again.calls == []
    other = Letters(fingerprint="other")
    mine_files(other, source, target, out, keep_embeddings=True)
    assert other.calls == [50, 50]
    write(target, ["changed", "lines"])
    mine_files(other, source, target, out, keep_embeddings=True)
    assert other.calls[2:] == [2]
    assert len(vectors_of(out, "target")) == 1  # those of the old text are gone


@pytest.mark.parametrize(
    ("content", "what", "place"),
    [
        (b"\n \n", "no sentences", ""),
        (None, "can't be read", ""),
        (b"ok\ncaf\xe9\n", "byte 4 of the line", ":2"),
    ],
)
def test_files_that_cannot_be_mined(tmp_path, content, what, place):
    good, bad = write(tmp_path / "good.txt", ["a"]), tmp_path / "bad.txt"
    if content is not None:
        bad.write_bytes(content)
    embed = Letters()
    with pytest.raises(DataError, match=what) as caught:
        mine_files(embed, good, bad, tmp_path / "out.tsv")
    assert embed.calls == []  # both are read before anything is computed
    assert caught.value.where.endswith(f"bad.txt{place}") and not (tmp_path / "out.tsv").exists()


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda data: data[:-8] + bytes(8), [1]),  # in the last row
        (lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2), [16, 10]),
        (lambda data: data[:-200], [2]),  # cut off
        (lambda data: data[:-4] + bytes([data[-4] ^ 1]) + data[-3:], [1]),  # one bit of a number
        (lambda data: data.replace(b"<f4", b"<i4"), [16, 16, 16, 2]),
    ],
)
def test_damaged_vectors_are_made_again(tmp_path, files, damage, again):
    source, target, _ = files
    out = tmp_path / "pairs.tsv"
    mine_files(Letters(), source, target, out, chunk=16, keep_embeddings=True)
    right = out.read_bytes()
    (vectors,) = vectors_of(out)
    vectors.write_bytes(damage(vectors.read_bytes()))
    embed = Letters()
    mine_files(embed, source, target, out, chunk=16, keep_embeddings=True)
    assert embed.calls == again and out.read_bytes() == right


def test_planted_links_are_not_followed(tmp_path, files):
    source, target, _ = files
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out, work = tmp_path / "pairs.tsv", tmp_path / "pairs.tsv.work"
    mine_files(Letters(), source, target, out, keep_embeddings=True)
    for name in (tmp_path / ".pairs.tsv.partial", *vectors_of(out), out):
        name.unlink(missing_ok=True)
        name.symlink_to(victim)
    mine_files(Letters(), source, target, out)
    assert victim.read_text() == "mine" and not out.is_symlink()
    work.symlink_to(tmp_path)
    with pytest.raises(DataError, match="work folder is a link"):
        mine_files(Letters(), source, target, out)


def test_a_full_disk_is_an_error_and_no_signal(tmp_path, files, monkeypatch):
    def full(descriptor, start, size):
        assert size > 50 * 26 * 4
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    source, target, _ = files
    embed = Letters()
    for _ in range(2):  # the file that was made without room is not taken for one that has it
        with pytest.raises(OSError, match="No space left") as caught:
            mine_files(embed, source, target, tmp_path / "pairs.tsv")
        assert "source-" in explain(caught.value).where
    assert embed.calls == []  # nothing is computed before there is room for it
