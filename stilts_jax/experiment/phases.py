"""Which phases an experiment has: a pure function from settings and tasks to a list, parents first.

A phase is what is trained (or only evaluated) as one unit. Two targets that train on the same data with the same
hyperparameters share a phase (XQuAD and MLQA), and every target shares the intermediate phase before it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, cycle
from typing import Any, Literal, TypeVar

from stilts_jax.checked import split_names, split_pairs, stem
from stilts_jax.errors import ConfigError, nearest
from stilts_jax.settings import TASK_OPTIONS, Settings
from stilts_jax.tasks import get_task, list_tasks, task_name
from stilts_jax.tasks.spec import Hyperparameters, Task

NONE = "none"
Value = TypeVar("Value")
HUB = "hub:"  # a row that starts from another, already fine-tuned encoder
# How targets are trained: on these tasks, one after the other, with these hyperparameters.
Training = tuple[tuple[str, ...], Hyperparameters | None]


@dataclass(frozen=True)
class Phase:
    """One unit of an experiment; tasks are references for ``get_task``: ``my.module:TASK``, ``mnli@de``."""

    name: str  # readable and unique in its grid: ``mnli.s0``, ``mnli.s0+squad_v1.s1``
    stage: Literal["intermediate", "target", "retrieval"]
    intermediate: str
    train: tuple[str, ...]  # one task per step where there are several; empty where nothing is trained
    evaluate: tuple[str, ...]  # scored when it is done
    encoder: str  # where the encoder comes from if there is no parent
    parent: "Phase | None" = None
    intermediate_seed: int | None = None
    target_seed: int | None = None
    hyperparameters: Hyperparameters | None = None  # the target's own where it trains on another task's data
    carry_head: bool = False  # take over the parent's head too (the second step of a training in two steps)

    @property
    def seed(self) -> int:
        """The seed of what this phase itself trains."""
        return (self.intermediate_seed if self.stage == "intermediate" else self.target_seed) or 0

    def line(self) -> Iterator["Phase"]:
        """Itself, its parent, and so on."""
        yield self
        if self.parent:
            yield from self.parent.line()


def list_phases(settings: Settings, *, is_part: bool = False) -> list[Phase]:
    """Returns every phase of the grid, parents before children; of a part of it exceptions may name other tasks."""
    experiment, trainings, phases = settings.experiment, _target_trainings(settings), list[Phase]()
    special = f"{NONE} is the encoder itself, {HUB}FOLDER another one (whose name has no +); "
    for row in split_names(experiment.intermediates):
        if row == NONE or row.startswith(HUB):  # an encoder as it is
            encoder = settings.encoder if row == NONE else row.removeprefix(HUB)
            phases += _target_phases(Phase(row, "intermediate", row, (), (), encoder), trainings, settings)
            continue
        # A task of one's own, which has a colon, is meant for neither of the two.
        train, may_be_special = tuple(row.split("/")), ":" not in row or row.lower().startswith("hub")
        with _said_of(f"experiment.intermediates: {row}", special * may_be_special):
            tasks = {name: get_task(name) for name in train}
        scored = tuple(name for name, task in tasks.items() if task.is_scored_on_selection)
        label = "+".join(tasks[name].name for name in train)
        for seed in range(experiment.first_seed, experiment.first_seed + experiment.intermediate_seeds):
            about = label, train, scored, settings.encoder
            start = Phase(f"{label}.s{seed}", "intermediate", *about, intermediate_seed=seed)
            phases += [start, *_target_phases(start, trainings, settings)]
    _check_names(phases, settings, is_part)
    return phases


def _check_names(phases: list[Phase], settings: Settings, is_part: bool) -> None:
    tasks: dict[str, Task] = {}
    for task in (get_task(name) for phase in phases for name in (*phase.train, *phase.evaluate)):
        if tasks.setdefault(task.name, task) != task:
            what, fix = f"Two tasks are called {task.name!r}.", "rename one of them"
            raise ConfigError(what, where="config.experiment", fix=fix)
    trained = ((phase.name, *(f"{task} of {phase.name}" for task in phase.train)) for phase in phases)
    scored = ([f"{task} after {phase.name}" for task in phase.evaluate] for phase in phases)
    for name, count in Counter(chain(*trained, *scored)).items():
        if count > 1:
            what, fix = f"{name!r} would be run twice.", "name each row and target once"
            raise ConfigError(what, where="config.experiment", fix=fix)
    for name in (name for phase in phases for name in phase.train if name.startswith("mlm@")):
        what, fix = f"{name} names a language of texts.", f"write mlm, and mixture.mlm_languages={name[4:]}"
        raise ConfigError(what, where="config.experiment", fix=fix)
    if is_part:
        return
    if any(get_task(name).kind == "mlm" for phase in phases for name in phase.evaluate):
        what, fix = "Masked language modelling has no score to report.", "name it as an intermediate"
        raise ConfigError(what, where="config.experiment.targets", fix=fix)
    # A task that a part of an experiment leaves out may keep its exceptions.
    known = {name for task in tasks for name in (task, stem(task))}.union(list_tasks())
    targets = {task_name(name) for name in split_names(settings.experiment.targets)}
    weights = name_tasks(settings.mixture.pairs, "mixture.weights")
    for option, given, names in (
        *(("train.by_task", values, known) for values in settings.train.exceptions().values()),
        ("data.sources", settings.data.kinds, known),
        ("mixture.weights", settings.mixture.pairs, known),
        ("experiment.train_on", find_instead(settings), targets.union(list_tasks())),
    ):
        check_tasks(given, option, names)
    for phase in phases if weights else ():
        mixed = [get_task(name).name for name in phase.train] if len(phase.train) > 1 else []
        if lost := ", ".join(name for name in mixed if name not in weights):
            what, fix = f"{phase.name} mixes {lost}, which has no weight.", "give each task of each row one"
            raise ConfigError(what, where="config.mixture.weights", fix=fix)


def check_tasks(given: Mapping[str, Any], option: str, names: Collection[str]) -> None:
    """Raises where an option names what is no task, neither here (``names``, as in results) nor elsewhere."""
    name_tasks(given, option)  # what is spelt as ``get_task`` takes it is a task, or is refused there
    plain = {name for name in given if ":" not in name and name.partition("@")[0] not in list_tasks()}
    for name in plain.difference(names):
        raise ConfigError(f"{name!r} is no task.", where=f"config.{option}", fix=nearest(name, names))


@contextmanager
def _said_of(option: str, first: str = "") -> Iterator[None]:
    """Lets an error about a task say which option names it, and ``first`` of what to do."""
    try:
        yield
    except ConfigError as error:
        where = ", ".join(filter(None, (f"config.{option}", error.where)))
        raise ConfigError(error.what, where=where, fix=first + error.fix) from error


def name_tasks(given: Mapping[str, Value], option: str) -> dict[str, Value]:
    """Returns what an option says of tasks by their names in results; one task may be spelt in several ways."""
    found = dict[str, Value]()
    for name, value in given.items():
        with _said_of(option):
            own = task_name(name)
        if found.setdefault(own, value) != value:
            what, fix = f"{own!r} has two values, one of them as {name!r}.", "give it one"
            raise ConfigError(what, where=f"config.{option}", fix=fix)
    return found


def find_instead(settings: Settings) -> dict[str, str]:
    """Returns what ``experiment.train_on`` says, by the names of targets in results."""
    pairs = split_pairs(settings.experiment.train_on, "config.experiment.train_on")
    return name_tasks(pairs, "experiment.train_on")


def _target_trainings(settings: Settings) -> dict[Training, tuple[str, ...]]:
    """Returns the target tasks that each run serves."""
    instead, trainings = find_instead(settings), dict[Training, tuple[str, ...]]()
    for name in split_names(settings.experiment.targets):
        with _said_of("experiment.targets"):
            task = get_task(name)
        wanted = instead[task.name].split("/") if task.name in instead else task.train_on or (name,)
        if task.name in instead and not task.is_trained:
            what, fix = f"{name} is scored without training.", "leave it out"
            raise ConfigError(what, where="config.experiment.train_on", fix=fix)
        language = task.source_language if "@" in name else settings.experiment.source_language
        suffix = "" if language == "en" else f"@{language}"
        steps = tuple(step if "@" in step else f"{step}{suffix}" for step in wanted if task.is_trained)
        where = "experiment.train_on, or train_on of the task"
        with _said_of(f"experiment.source_language, {where}" if suffix else where):
            found = list(map(get_task, steps))
        for step in found:  # a head that can answer
            if step.kind != task.kind or (step.labels and task.labels and step.labels != task.labels):
                forms = [" of ".join(filter(None, (one.kind, ", ".join(one.labels)))) for one in (task, step)]
                what = f"{name} ({forms[0]}) can't be scored by a model of {step.name} ({forms[1]})."
                fix = "train it on a task of its kind with the same labels in the same order"
                raise ConfigError(what, where=f"config.{where}", fix=fix)
        training = steps, hyperparameters_of(task, settings) if steps else None
        trainings[training] = (*trainings.get(training, ()), name)
    return trainings


def hyperparameters_of(task: Task, settings: Settings, phase: Phase | None = None) -> Hyperparameters:
    """Returns the phase's own, where it has them, or the task's preset with what the settings override."""
    if phase and phase.hyperparameters:
        return phase.hyperparameters
    preset = task.hyperparameters.get(settings.preset, task.hyperparameters["paper"])
    given: dict[str, Any] = {name: getattr(settings.train, name) for name in TASK_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    for option, values in settings.train.exceptions().items():
        named = name_tasks(values, "train.by_task")
        for name in (stem(task.name), task.name):
            given |= {option: named[name]} if name in named else {}
    # 2 and 2.0 are one number, and two in a key: what the preset says stays as it says it.
    return replace(preset, **{name: one for name, one in given.items() if one != getattr(preset, name)})


def unread_exceptions(phases: list[Phase], settings: Settings) -> Iterator[str]:
    """Yields what ``train.by_task`` says in vain: of a task that only targets train on, with their own numbers.

    And of texts beside other tasks, which ``mixture`` speaks of.
    """
    with_texts = [len(phase.train) for phase in phases if "mlm" in phase.train]
    for option in ("batch_size", "max_length", "epochs") * (min(with_texts, default=1) > 1):
        if "mlm" in settings.train.exceptions().get(option, {}):
            told = f"beside other tasks it is mixture.mlm_{'weight' if option == 'epochs' else option}"
            yield f"config.train.by_task: mlm.{option} changes nothing here ({told})"
    rows = {get_task(name).name for phase in phases if phase.stage == "intermediate" for name in phase.train}
    for (steps, _), names in _target_trainings(settings).items():
        targets = [get_task(name).name for name in names]
        for option, values in settings.train.exceptions().items():
            given = name_tasks(values, "train.by_task")
            for step in sorted({get_task(name).name for name in steps} & given.keys() - rows):
                if given.keys().isdisjoint(targets):
                    own = f"{', '.join(targets)}, trained on {step}, has its own: {targets[0]}.{option}"
                    yield f"config.train.by_task: {step}.{option} changes nothing here ({own})"


def _target_phases(
    start: Phase, trainings: dict[Training, tuple[str, ...]], settings: Settings
) -> Iterator[Phase]:
    first = settings.experiment.first_seed
    start = replace(start, parent=start if start.train else None, train=(), evaluate=())
    for (steps, hyperparameters), targets in trainings.items():
        if not steps:
            yield replace(start, name=f"{start.name}+retrieval", stage="retrieval", evaluate=targets)
        # Runs that begin on the same data, perhaps with other hyperparameters, need names of their own.
        alone = sum(other[:1] == steps[:1] for other, _ in trainings) == 1
        own = "" if alone else f"({get_task(targets[0]).name})"
        for seed in range(first, first + settings.experiment.target_seeds):
            last, path = start.parent, start.name + "+"
            for number, step in enumerate(steps, 1):
                path += "-" * (number > 1) + get_task(step).name
                last = replace(
                    start,
                    name=f"{path}{own}.s{seed}",
                    stage="target",
                    train=(step,),
                    evaluate=targets if number == len(steps) else (),
                    parent=last,
                    target_seed=seed,
                    hyperparameters=hyperparameters,
                    carry_head=number > 1,
                )
                yield last


def select_part(phases: list[Phase], part: int, parts: int) -> list[Phase]:
    """Returns the phases of one part, from 1 to ``parts``.

    Rows (an intermediate with one of its seeds) are dealt out whole, so that parents stay with their children. Of more
    parts than rows several share a row: the first trains the intermediate, the others wait and take targets.
    """
    rows: dict[tuple[str, int | None], dict[str, list[Phase]]] = {}
    for phase in phases:
        row = rows.setdefault((phase.intermediate, phase.intermediate_seed), {})
        # A training in two steps stays together.
        steps = [one.name for one in phase.line() if one.stage == phase.stage]
        row.setdefault(steps[-1], []).append(phase)
    mine: list[Phase] = []
    for number, units in enumerate(rows.values()):
        takers = [taker for taker in range(parts) if taker % len(rows) == number] or [number % parts]
        for unit, taker in zip(units.values(), cycle(takers)):
            mine += unit if taker == part - 1 else []
    return mine
