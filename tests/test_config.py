"""The edge: config files, typed arguments, overrides, and what is refused before anything is built."""

import pytest
from ml_collections import ConfigDict

from stilts_jax.config import base_config, find_config, load_config, to_settings
from stilts_jax.errors import ConfigError

CONFIGS = sorted(path.stem for path in find_config("base").parent.glob("*.py"))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("debug", [False, True])
def test_every_config_file_gives_settings_and_takes_debug(name, debug):
    settings = to_settings(load_config(name + ":debug" * debug))  # raises on an option too many or too few
    assert settings.debug == settings.compute.check_nans == debug
    assert not debug or (settings.train.max_steps <= 10 and settings.train.buckets == 1)


@pytest.mark.parametrize("argument", ["task=panx,debug", "debug,task=panx", "task=panx:debug"])
def test_debug_stands_among_or_behind_arguments(argument):
    settings = to_settings(load_config(f"target:{argument}"))
    assert settings.debug and settings.experiment.targets == "panx"
    assert not to_settings(load_config("target:task=my.module:TASK")).debug


def test_an_override_reaches_its_option_and_keeps_its_type():
    given = {"train.learning_rate": "3e-5", "train.phase_vocabulary": "false"}
    settings = to_settings(load_config("target:task=panx", given))
    assert settings.train.phase_vocabulary is False
    assert (settings.train.learning_rate, settings.experiment.targets) == (3e-5, "panx")
    assert settings.train.batch_size is None  # left to the preset


@pytest.mark.parametrize(
    ("spec", "overrides", "words"),
    [
        ("small:debgu", {}, ["did you mean 'debug'?"]),
        ("XSTILT.yaml", {}, ["There is no config", "did you mean 'xstilts'"]),
        ("small:languages=de+sw", {}, ["no argument 'languages'", "--config.experiment.languages=..."]),
        ("xstilts:preset=papers", {}, ["papers", "paper"]),
        ("target", {"train.learning_rat": "1e-5"}, ["train.learning_rat", "learning_rate"]),
        ("target:source_language=", {}, ["experiment.source_language"]),
        ("target", {"train.learning_rate": "fast"}, ["fast", "a number"]),
        ("target", {"train.phase_vocabulary": "perhaps"}, ["perhaps", "true"]),
        ("target", {"train.learning_rate": "-1"}, ["train.learning_rate", "at least 0"]),
        ("target", {"train.epsilon": "inf"}, ["train.epsilon", "at most"]),
        ("target", {"train.batch_size": "9" * 5000}, ["train.batch_size", "999"]),
        ("target", {"train.clip_norm": "nan"}, ["train.clip_norm", "nan"]),
        ("target", {"compute.remat": "dot"}, ["compute.remat", "dots"]),
        ("target", {"data.cache": "a\0b"}, ["data.cache", "printed"]),
        ("target", {"learning_rate": "1e-5"}, ["did you mean 'train.learning_rate'"]),
        ("target", {"limit": "1"}, ["data.limit", "evaluation.limit"]),
        ("target", {"qqqqqq": "1"}, ["settings.py"]),
        ("target", {"train.batch_size": "6", "train.accumulation": "4"}, ["divisor"]),
        ("target", {"train.schedule": "linaer"}, ["linaer", "linear"]),
        ("target", {"mixture.sampler": "weights"}, ["mixture.weights"]),
        ("target", {"encoder": ""}, ["encoder"]),
        ("target", {"experiment.targets": "", "experiment.intermediates": "none"}, ["Nothing"]),
    ],
)
def test_what_is_wrong_is_refused_with_the_nearest_name(spec, overrides, words):
    with pytest.raises(ConfigError) as caught:
        to_settings(load_config(spec, overrides))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


GIVE = "import ml_collections as m, stilts_jax.config as s\ndef get_config(a):\n  return "
ADD = f"{GIVE}s.base_config()".replace("return", "c =") + "\n  c.train.x = 1\n  return c"


@pytest.mark.parametrize("text", ["x = 1", "x = ", f"{GIVE}1", f"{GIVE}m.ConfigDict()", "1 / 0", ADD])
def test_a_file_that_fails_is_named(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(f"{path}:debug")
    assert caught.value.where == str(path)


def test_a_users_own_file_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from stilts_jax.config import base_config\n\n"
        "def get_config(argument=''):\n    c = base_config()\n    c.title = 'mine ' + argument\n    return c\n"
    )
    assert to_settings(load_config("~/mine.py:now")).title == "mine now"


def test_a_config_from_python_is_checked_as_a_file_is():
    for wrong, words in (({"foo": {}}, "'foo'"), ({"train": {"epochs": {"a": 1}}}, "train.epochs=a: 1")):
        config = ConfigDict(base_config().to_dict())
        config.update(wrong)
        with pytest.raises(ConfigError, match=words):
            to_settings(load_config(config))
    with pytest.raises(ConfigError, match=r"trained with an option 'compute\.foo'"):  # of another version
        load_config("target", own={"compute.foo": 1})
