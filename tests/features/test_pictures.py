"""Pictures become patches; what can't be used is named, and nothing is written then."""

import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from stilts_jax.batches.collate import collate
from stilts_jax.batches.masking import Masking
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.errors import DataError
from stilts_jax.features.pictures import Sight, add_pictures, build_table
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks.sources.pictures import check_picture, hash_pictures
from stilts_jax.tasks.sources.rows import BadRow
from stilts_jax.tasks.spec import ClassifyExample, TextExample

NAMES = ["set/images/0.png", "set/images/1.png", "set/images/2.jpg"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "set" / "images"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in NAMES:
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name)
    return tmp_path / "data"


def sight(root, cache="cache", **options):
    return Sight(root, root.parent / cache, size=32, patch=16, **options)


def table(root, names=NAMES, **options):
    return np.load(build_table(names, sight(root, **options)), mmap_mode="r")


def files_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_patches_lie_row_by_row_and_hold_their_pixels(root):
    pixels = np.asarray(Image.open(root / NAMES[1]))
    found = table(root)
    assert found.shape == (3, 4, 768) and found.dtype == np.uint8
    for number, (top, left) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        expected = pixels[top : top + 16, left : left + 16].reshape(-1)
        np.testing.assert_array_equal(found[1, number], expected)


def test_a_zip_stands_for_its_folder(root):
    expected = np.array(table(root))
    with zipfile.ZipFile(root / "set" / "images.zip", "w") as file:
        for number, name in enumerate(NAMES):
            top = (
                "images/" if number else ""
            )  # with the folder's name in front, as COCO is zipped, or without
            file.write(root / name, top + name.rpartition("/")[2])
            (root / name).unlink()
    (root / "set" / "images").rmdir()
    np.testing.assert_array_equal(table(root, cache="other"), expected)


def test_other_modes_become_rgb_on_white(root):
    Image.new("L", (8, 8), 100).save(root / NAMES[0])
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(root / NAMES[1])
    found = table(root, NAMES[:2])
    assert (found[0] == 100).all() and (found[1] == 255).all()


def test_the_table_is_made_once_and_again_when_a_picture_changes(root):
    table(root)
    before = files_in(root.parent / "cache")
    table(root)
    assert len(before) == 1 and files_in(root.parent / "cache") == before
    Image.new("RGB", (40, 40)).save(root / NAMES[0])
    assert (table(root)[0] == 0).all()
    whole = root.parent / "cache" / before[0]
    whole.write_bytes(whole.read_bytes()[:200])  # what a full disk leaves
    assert table(root).shape == (3, 4, 768)


def png(width, height, depth=8, colour=2):
    """A PNG that says how large it is and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _animate(path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "no picture": lambda path: path.write_bytes(b"<html>404</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "a gif": lambda path: Image.new("RGB", (8, 8)).save(path, format="GIF"),
    "animated": _animate,
    "CMYK": lambda path: Image.new("CMYK", (8, 8)).save(path, format="JPEG"),
    "16 bits": lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path, format="PNG"),
    "a bomb": lambda path: path.write_bytes(png(60_000, 60_000)),
    "large": lambda path: path.write_bytes(png(9_000, 9_000)),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_picture_is_named_and_nothing_is_written(root, how):
    DAMAGES[how](root / NAMES[1])
    with pytest.raises(DataError) as caught:
        table(root)
    assert "1.png" in caught.value.where and caught.value.fix
    assert not files_in(root.parent / "cache")


def test_a_row_without_its_picture_is_a_bad_row(root):
    check_picture(root, NAMES[0])
    for name in ("set/images/9.png", "set/../set/images/0.png", "/etc/0.png", "0.png"):
        with pytest.raises(BadRow):
            check_picture(root, name)
    with pytest.raises(DataError, match="no pictures"):
        check_picture(root, "nowhere/0.png")


def write_features(root, array, names=("2.jpg", "0.png", "1.png")):
    folder = root / "set" / "images.vit"
    folder.mkdir(exist_ok=True)
    np.save(folder / "features.npy", array)
    (folder / "features.json").write_text(json.dumps({"names": list(names)}))


def test_features_are_found_by_name(root):
    array = np.arange(3 * 2 * 5, dtype=np.float32).reshape(3, 2, 5)
    write_features(root, array)
    found = table(root, encoder="vit")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, array[[1, 2, 0]])
    old = hash_pictures(root, NAMES, "vit")
    write_features(root, array + 1)
    assert hash_pictures(root, NAMES, "vit") != old
    with pytest.raises(BadRow):
        check_picture(root, "set/images/9.png", "vit")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 5)), np.zeros((3, 5)), np.zeros((3, 2, 5), int), np.full((3, 2, 5), np.nan)]
)
def test_features_of_another_form_are_refused(root, array):
    write_features(root, array)
    with pytest.raises(DataError, match="features"):
        table(root, encoder="vit")
    assert not files_in(root.parent / "cache")


def test_features_of_two_folders_have_one_width(root):
    write_features(root, np.zeros((3, 2, 5)))
    other = root / "set" / "more.vit"
    other.mkdir()
    np.save(other / "features.npy", np.zeros((1, 2, 7)))
    (other / "features.json").write_text('{"names": ["3.png"]}')
    with pytest.raises(DataError) as caught:
        table(root, [*NAMES, "set/more/3.png"], encoder="vit")
    assert caught.value.where == "set/more/3.png"


def shown(root, how):
    """What the rows of questions about the pictures see, [rows, patches, width], and the batch of all of them."""
    examples = {
        language: [
            ClassifyExample(f"{language}{n}", "what?", None, 0, (name,)) for n, name in enumerate(NAMES * 5)
        ]
        for language in ("en", "de")
    }
    rows = [row for part in examples.values() for row in part]
    tokens = Ragged.from_list([[0, 5, 2]] * len(rows))
    columns = {"example": np.arange(len(rows)), "tokens": tokens, "label": np.zeros(len(rows), np.int32)}
    features = Features("classify", columns, ("en", "de"), len(rows), "")
    found = add_pictures(features, examples, how, sight(root))
    batch = collate(found, np.arange(len(rows)), 4)
    assert found.picture_shape == (1, 4, 768) and found.visual_tokens == 4
    assert batch["visual"].shape == (len(rows), 1, 4, 768) and batch["visual_mask"].all()
    return batch["visual"][:, 0]


def test_what_is_shown_of_pictures(root):
    own, expected = table(root), np.tile(np.arange(3), 10)
    np.testing.assert_array_equal(shown(root, "seen"), own[expected])
    assert not shown(root, "blind").any()
    others = shown(root, "shuffled")
    numbers = np.array([next(n for n in range(3) if (own[n] == one).all()) for one in others])
    assert (
        sorted(numbers) == sorted(expected) and (numbers != expected).sum() > 10
    )  # the same pictures, elsewhere
    np.testing.assert_array_equal(shown(root, "shuffled"), others)


def test_a_row_may_have_fewer_pictures_than_others(root):
    examples = [
        ClassifyExample("a", "?", None, 0, tuple(NAMES[:2])),
        ClassifyExample("b", "?", None, 0, (NAMES[2],)),
    ]
    tokens = Ragged.from_list([[0, 2]] * 2)
    columns = {"example": np.arange(2), "tokens": tokens, "label": np.zeros(2, np.int32)}
    features = Features("classify", columns, ("en",), 2, "")
    found = add_pictures(features, {"en": examples}, "seen", sight(root))
    batch = collate(found, np.array([1, 0]), 4)
    assert batch["visual"].shape == (2, 2, 4, 768)
    assert batch["visual_mask"].tolist() == [[True, False], [True, True]]
    np.testing.assert_array_equal(batch["visual"][0, 0], table(root)[2])


def test_captions_with_pictures_are_not_packed(root):
    examples = [TextExample(str(n), "a cat", (name,)) for n, name in enumerate(NAMES)]
    tokens = Ragged.from_list([[0, 10 + n, 11, 12, 2][: 3 + n] for n in range(3)])
    columns = {"example": np.arange(3), "tokens": tokens, "language": np.zeros(3, np.int32)}
    features = Features("mlm", columns, ("en",), 3, "")
    found = add_pictures(features, {"en": examples}, "seen", sight(root))
    masking = Masking(4, 50, mask_share=0.0, random_share=0.0)
    options = {"batch_size": 3, "seed": 0, "max_length": 64, "masking": masking}
    assert TrainingBatches("captions", features, **options).num_rows == 1
    batches = TrainingBatches("captions", found, **options)
    arrays = batches.batch_at(0).arrays
    assert batches.num_rows == 3 and arrays["tokens"].shape == (3, 6)
    for row, seen in zip(arrays["tokens"], arrays["visual"], strict=True):
        np.testing.assert_array_equal(seen[0], table(root)[row[1] - 10])  # each caption with its own picture
