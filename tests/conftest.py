"""What tests of several folders share: a small real tokenizer, the toy world, a finished demo, and real data."""

import os
import random
import signal
import tempfile
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from stilts_jax.tokenization import Tokenizer, load_tokenizer
from stilts_jax.toy.world import write_tasks, write_texts
from tests.typed import stilts


def pytest_configure(config: pytest.Config) -> None:
    """Before jax is imported: tiny models need no fast code, and what one test has compiled the others read."""
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = tempfile.TemporaryDirectory()
        config.add_cleanup(cache.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so would what they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


TEXT = """
the house river teacher walked quickly because seventeen birds 1995 unbelievable paper, end. été naïve Berlin
中国 是一个 国家 北京 上海 今天 天气 很好 กรุงเทพ สวัสดี ครับ ประเทศไทย
السلام عليكم مدينة كتاب Привет город книга
"""
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def make_text():
    """Makes lines of words in several scripts."""

    def make(seed: int, low: int = 1, high: int = 30) -> str:
        draw = random.Random(seed)
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return make


@pytest.fixture(scope="session")
def lines(make_text) -> list[str]:
    return [make_text(seed) for seed in range(1000, 1120)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, make_text) -> Path:
    """A Unigram tokenizer in the layout of an XLM-R encoder folder."""
    folder = tmp_path_factory.mktemp("encoder")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([make_text(seed) for seed in range(300)]),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=200,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def plain(tokenizer_folder):
    """The tokenizer as ``transformers`` has it; an own copy, because calling it changes its state."""
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The data root of real release files."""
    if not os.environ.get("STILTS_REAL_DATA"):
        pytest.skip("no real data")
    return Path(os.environ["STILTS_REAL_DATA"])


@pytest.fixture(scope="session")
def real_tokenizer() -> Tokenizer:
    """XLM-R's own vocabulary of 250,002."""
    if not os.environ.get("STILTS_REAL_ENCODER"):
        pytest.skip("no real encoder")
    return load_tokenizer(os.environ["STILTS_REAL_ENCODER"])


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The smallest toy world."""
    folder = tmp_path_factory.mktemp("world")
    for write in (write_texts, write_tasks):
        write(folder, size="test")
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of commands: eight forced CPU devices."""
    # Eight devices on two busy cores may wait for each other longer than the 40 seconds after which XLA gives up.
    patient = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8 {patient}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """The work directory of a finished demo of the smallest size (only read it), and what the demo printed."""
    workdir = tmp_path_factory.mktemp("demo")
    return workdir, stilts("demo", "--size=test", f"--workdir={workdir}")


@pytest.fixture
def usual_handlers():
    """Those of a command in the foreground: a shell starts one in the background with SIGINT ignored."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
