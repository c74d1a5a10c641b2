"""PAN-X (WikiANN): names of persons, places and organisations in Wikipedia, 40 languages (48 in XTREME-R)."""

from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import read_tagged
from stilts_jax.tasks.spec import Task, files, hub, names, tfds
from stilts_jax.tasks.udpos import TASK as UDPOS

LANGUAGES = names("""
    ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw
    yo my zh kk tr et fi hu
""")
_ALL = (*LANGUAGES, *names("qu pl uk az lt pa gu ro"))  # with those that only XTREME-R has
_PATHS = "panx/{split}-{language}.tsv panx/{language}-{split} panx/{language}/{split}"

TASK = Task(
    name="panx",
    title="NER",
    kind="tag",
    languages=_ALL,
    labels=names("B-LOC B-ORG B-PER I-LOC I-ORG I-PER O"),
    hyperparameters=UDPOS.hyperparameters,
    counts={"train": {"en": 20_000}, "dev": {"en": 10_000}, "test": {"en": 10_000}},
    sources=(
        files(_PATHS, tag(), read=read_tagged),
        hub("google/xtreme/PAN-X.{language}", tag("tokens", "ner_tags"), languages=LANGUAGES),
        hub("unimelb-nlp/wikiann/{language}", tag("tokens", "ner_tags"), languages=_ALL),
        tfds("wikiann/{language}", tag("tokens"), languages=_ALL),
    ),
)
