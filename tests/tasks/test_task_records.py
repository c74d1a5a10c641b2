"""Every task of the package says what it has to say."""

import pytest

from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.tasks import get_task, list_tasks, task_name
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.spec import counts, names, pairs

INTERMEDIATE = names("""
    anli mnli qqp squad_v1 squad_v2 hellaswag ccg cosmosqa commonsenseqa snli siqa copa mlm easy_vqa vqa_v2 gqa
    coco_captions coco_matching nlvr2
""")
# Counted by hand from the lists of XTREME-R, which holds XTREME's, and from the papers of the others.
LANGUAGES = counts("""
    xnli:15 pawsx:7 udpos:38 panx:48 xquad:12 mlqa:7 tydiqa:9 sib200:205 belebele:122 masakhaner2:20 masakhaner_x:20
    afriqa:9 nusax:12 masakhanews:16 xcsqa:16 bucc:4 tatoeba:41 xcopa:11 lareqa:11 mewslix:11
""")


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_says_what_it_has_to(name):
    task = get_task(name)
    assert task.name == name
    assert task.metric in METRICS or task.kind == "mlm"
    assert (task.group == "intermediate") == (name in INTERMEDIATE)
    assert task.title and task.version >= 1
    assert bool(task.labels) == (task.kind in ("classify", "tag") and not task.labels_file)
    assert len(task.languages) == LANGUAGES.get(name, len(task.languages))
    for earlier in task.train_on:
        trained = get_task(earlier)
        assert trained.kind == task.kind and (task.kind == "choice" or trained.labels == task.labels)


def test_label_orders():
    assert get_task("xnli").labels == ("contradiction", "entailment", "neutral")  # jiant's, not the hub's
    assert get_task("panx").labels == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
    assert len(get_task("udpos").labels) == 17


def test_a_language_has_one_code_whatever_the_data_call_it():
    ours = pairs("""
        swh_Latn:sw swa:sw sw:sw hau:ha luo:luo nob_Latn:nb zho_Hans:zh zho_Hant:zh_Hant hin_Latn:hi_Latn arz_Arab:arz
        zh_Hant:zh_Hant hi_Latn:hi_Latn kr_Arab:kr_Arab
    """)
    assert {theirs: our_code(theirs) for theirs in ours} == ours


def test_a_language_of_a_task_may_have_its_longer_code():
    for code in ("yo", "yor", "yor_Latn", "YO"):
        assert get_task(f"masakhaner_x@{code}").name == task_name(f"masakhaner_x@{code}") == "masakhaner_x@yo"
    assert get_task("mnli@deu").name == "mnli@deu"  # the files of a translation say what they call it
