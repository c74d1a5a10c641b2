"""The commands of ``stilts``: one file each, with ``add_arguments(parser)`` and ``run(arguments)``.

A file's docstring is its help. Whatever is heavy to import is imported inside ``run``, so that ``--help`` is quick
and ``stilts score`` needs no accelerator.
"""
