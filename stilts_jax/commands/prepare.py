"""Fetch what is missing and check what is there: the only command that ever downloads.

Reads every split once and prints its count beside that of the released data, names what is missing or differs, and
warns where training text is also evaluation text. The same command again fetches only what is not there yet. Tasks
that no hub or TFDS data set has are looked for as released files, which are not downloaded: the table says where.
"""

import argparse

from stilts_jax.files import local_path, make_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    add = parser.add_argument
    add("names", nargs="*", metavar="TASK", help="only these tasks; all by default")
    add("--data_root", type=local_path, required=True, help="the folder that holds the data")
    fetched = "fetch from the Hugging Face hub or from TFDS; files are only checked"
    add("--source", choices=("files", "hub", "tfds"), default="files", help=fetched)
    only = "only these languages, and the one that each task is trained in; all by default"
    add("--languages", metavar="LL+LL", default="", help=only)
    add("--encoder", metavar="NAME", help="fetch this encoder from the hub too")
    add("--no_download", action="store_true", help="only look at what is there")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.progress import Progress
    from stilts_jax.tasks import get_task, list_tasks
    from stilts_jax.tasks.languages import our_code
    from stilts_jax.tasks.sources.prepare import format_preparation, prepare
    from stilts_jax.tasks.sources.read import DataSource

    progress = Progress()
    tasks = [get_task(name) for name in arguments.names or list_tasks()]
    if arguments.encoder:
        from stilts_jax.model import find_folder

        folder = find_folder(arguments.encoder, download=not arguments.no_download)
        progress.say(f"encoder {arguments.encoder}: {folder}")
    make_folder(arguments.data_root, "--data_root", to_write=not arguments.no_download)
    source = DataSource(root=arguments.data_root, kind=arguments.source)
    languages = [our_code(language) for language in arguments.languages.split("+") if language]
    download = not arguments.no_download
    found = prepare(tasks, source, languages=languages, download=download, progress=progress)
    print(format_preparation(found))
    return 0 if found.complete else 1
