"""Fetch what is missing and check what is there: the only command that ever downloads.

Reads every split once and prints its count beside that of the released data, names what is missing or differs, and
warns where training text is also evaluation text. The same command again fetches only what is not there yet. Tasks
that no hub or TFDS data set has are looked for as released files, which are not downloaded: the table says where.
"""

from argparse import Namespace

from stilts_jax.checked import split_names
from stilts_jax.commands.options import Add, check_data_root, joined_names
from stilts_jax.files import make_folder


def add_arguments(add: Add) -> None:
    chosen = "only these tasks; all by default, beside --encoder none"
    add("names", chosen, type=joined_names, nargs="*", metavar="TASK")
    add("--data_root", required=True)
    fetched = "fetch from the Hugging Face hub or from TFDS; files are only checked"
    add("--source", fetched, choices=("files", "hub", "tfds"), default="files")
    only = "only these languages, and the one that each task is trained in; all by default"
    add("--languages", only, metavar="LL+LL", default="")
    add("--encoder", "fetch this encoder from the hub too", metavar="NAME")
    add("--no_download", "only look at what is there", action="store_true")


def run(arguments: Namespace) -> int:
    from stilts_jax.tasks import get_task, list_tasks
    from stilts_jax.tasks.sources.inventory import format_preparation, prepare
    from stilts_jax.tasks.sources.read import DataSource

    progress, download = arguments.progress, not arguments.no_download
    every = [] if arguments.encoder else list_tasks()
    tasks = [get_task(name) for name in sum(arguments.names, ()) or every]
    if download and arguments.source != "files":
        make_folder(arguments.data_root, "--data_root")
    else:  # nothing is put there: a folder that is missing is mistyped
        check_data_root(arguments.data_root)
    if arguments.encoder:
        from stilts_jax.experiment.models import read_shape
        from stilts_jax.model import find_folder

        folder = find_folder(arguments.encoder, download=download)
        progress.say(f"encoder {arguments.encoder}: {folder}")
        read_shape(arguments.encoder)  # of another family it serves nobody
    if not tasks:
        return 0
    source = DataSource(root=arguments.data_root, kind=arguments.source)
    languages = split_names(arguments.languages)
    splits, overlaps = prepare(tasks, source, languages=languages, download=download, progress=progress)
    print(format_preparation(splits, overlaps))
    return 1 if any(one.note for one in splits) else 0
