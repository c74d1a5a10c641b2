"""List every task: what it is, its rows and languages, where its data was found and what is missing.

Rows are the release's. Languages are counted by split. "fetched from" says where `stilts prepare` gets it; what has
nothing there is read from files only.

With TASK, every path of these tasks is listed too, found or looked for, and three examples are shown as the model
will read them: the quickest check of your own data.
"""

from argparse import Namespace
from pathlib import Path

from stilts_jax.commands.options import Add, check_data_root, joined_names


def add_arguments(add: Add) -> None:
    add("names", "these only; also my.module:TASK and mnli@de", type=joined_names, nargs="*", metavar="TASK")
    add("--data_root", "the folder that holds the data; ./data by default")
    add("--encoder", "show the pieces of this encoder's vocabulary too", metavar="FOLDER")
    add("--source", choices=("files", "hub", "tfds"), default="files")


def run(arguments: Namespace) -> None:
    from stilts_jax.tasks import get_task, list_tasks
    from stilts_jax.tasks.sources.inventory import format_examples, format_inventory, format_paths
    from stilts_jax.tasks.sources.read import DataSource

    tasks = [get_task(name) for name in sum(arguments.names, ()) or list_tasks()]
    if arguments.data_root:
        check_data_root(arguments.data_root)
    source = DataSource(root=arguments.data_root or Path("data"), kind=arguments.source)
    print(format_inventory(tasks, source))
    cut = None
    if arguments.encoder and arguments.names:
        from stilts_jax.model import find_folder
        from stilts_jax.tokenization import load_tokenizer

        cut = load_tokenizer(find_folder(arguments.encoder)).spell
    for task in tasks if arguments.names else ():
        print(f"\n{format_paths(task, source)}\n")
        print(format_examples(task, source, cut))  # apart: a bad row is refused below the paths
