"""train: one look from the cached windows, and on request a second one without reference augmentation as its control.

Reads the cache and, for validation, the held-out windows' own pixels; writes `Look` records with the adapter and the
log. While it runs, `work/train/<arm>/` holds the checkpoint, the log and sample films.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinetune.artifacts import Arm, FileRef, LatentEntry, Look, ModelRef, Numbers
from cinetune.config import Config, flatten, section_sha
from cinetune.errors import ConfigError, ModelError, StoreError
from cinetune.pages.live import watching
from cinetune.processes import join_group
from cinetune.records import read_log
from cinetune.results import Cached, Ingested, Prepared, Trained
from cinetune.runtime import Reporter, choose_device, provenance, relay
from cinetune.sections import NOT_RECIPE, AugmentSection, TrainSection
from cinetune.stage import Made, Stage, divided
from cinetune.store import Project, content_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from cinetune.models.family import VideoModel
    from cinetune.training import Finished, HeldShot, Validator, WindowFile, World
    from cinetune.training.trackers import Trackers
    from cinetune.training.validate import Pieces

__all__ = ["STAGE", "inputs", "make", "run", "trial", "trial_key"]

NAME = "train"
VERSION = 3


def inputs(project: Project) -> dict[str, str]:
    """sha256 of the adapter that training starts from, if it does not start from a fresh one."""
    from cinetune.models.files.weights import adapter_input

    return adapter_input("train.init_from", _start(project))


def _start_sha(project: Project) -> dict[str, str]:
    from cinetune.models.files.weights import adapter_sha256

    path = _start(project)
    return {"train.init_from": adapter_sha256(path)} if path else {}


def _start(project: Project) -> Path | None:
    """The adapter that `train.init_from` names; None = a fresh one."""
    named = project.config.train.init_from
    return project.root / Path(named).expanduser() if named else None


def make(project: Project, report: Reporter) -> Made[Trained]:
    """Train what is missing. Raises `StoreError` if the cache is missing, `ModelError` on NaN,
    `ConfigError` when a batch cannot be split evenly over the processes.
    """
    store, config = project.store, project.config
    processes = join_group(config.model, config.parallel)
    runs = _runs(project)
    found = {one.key: store.find_unit(NAME, one.key, Look) for one in runs}
    missing = processes.same({key for key, look in found.items() if look is None})
    with watching(project) if processes.main else nullcontext():
        _train([one for one in runs if one.key in missing], config, report)
    looks = tuple(found[one.key] or store.made_unit(NAME, one.key, Look) for one in runs)
    notes = [f"{look.arm}: {text}" for look in looks for text in _said(look, store.path(look.log))]
    return Made(result=Trained(looks=looks), notes=notes, seed=config.train.seed)


def trial_key(project: Project) -> str:
    """What the look arm of these settings is made from, as one key."""
    return _runs(project)[0].key


def trial(project: Project, report: Reporter, folder: Path, judge: TrainSection) -> Look:
    """Train the look arm of these settings in a folder of its own, validated with the noise levels and the sampler of
    `judge`. The stage and its looks stay as they are.
    """
    from cinetune.training import alone

    return replace(_runs(project)[0], folder=folder, judge=judge).train(report, alone())()


def _runs(project: Project) -> list[_Run]:
    """The arms to train, each with what it is made from."""
    from cinetune.models import model_identity, model_ref

    store, config = project.store, project.config
    cached = store.need(Cached)
    entries, (shared,) = cached.entries, cached.shared
    model, made_by = model_ref(config.model), model_identity(config.model)
    if any(entry.model.weights_sha256 != model.weights_sha256 for entry in entries):
        raise StoreError(
            f"the cache was made with another model than {model.location}",
            where=f"{entries[0].model.location}, weights {entries[0].model.weights_sha256[:12]}",
            remedy="put model.path back, or run `cinetune cache` with this one",
        )
    dataset = content_key(
        "data", sorted([entry.window, entry.split, entry.file.sha256] for entry in entries), shared.sha256
    )
    runs: list[_Run] = []
    for arm, recipe in _arms(config.train).items():
        fingerprint = {
            "data set": dataset,
            "recipe": content_key(arm, recipe.model_dump(mode="json", exclude=NOT_RECIPE)),
            "base model": content_key(made_by),
            **_start_sha(project),
        }
        one = _Run(
            key=content_key(NAME, VERSION, arm, fingerprint, config.name, config.prepare.trigger),
            project=project,
            arm=arm,
            recipe=recipe,
            model=model,
            made_by=made_by,
            fingerprint=fingerprint,
            entries=entries,
            shared=shared,
            folder=store.work / "train" / arm,
        )
        runs.append(one)
    return runs


def _train(runs: list[_Run], config: Config, report: Reporter) -> None:
    """Train arms that are not there yet; with workers even a single one in one thread, so that its bytes do not depend
    on how many there are.
    """
    recipe = config.train
    if recipe.workers == 1:
        for run in runs:
            run.keep(report)
    elif join_group(config.model, config.parallel).size > 1:
        raise ConfigError(
            "arms cannot be trained side by side by processes that share one",
            where=f"train.workers = {recipe.workers}",
            remedy="set train.workers = 1, or start without torchrun",
        )
    elif runs:
        from cinetune.generation import Work, run_tasks

        named = f"{NAME} {' and '.join(run.arm for run in runs)}"
        with relay(report, named, recipe.steps * len(runs)) as far:
            work = Work(tasks=runs, open_maker=partial(_open, far), say=report.warn, done=lambda *_: None)
            run_tasks(work, workers=recipe.workers)


def _open(report: Reporter) -> Callable[[_Run], None]:
    return lambda run: run.keep(report)


def _arms(recipe: TrainSection) -> dict[Arm, TrainSection]:
    """The arms to train with their recipes: equal but for reference augmentation."""
    arms: dict[Arm, TrainSection] = {"look": recipe}
    if recipe.plain_arm:
        arms["plain"] = recipe.model_copy(update={"augment": AugmentSection(probability=0, single_frame=0)})
    return arms


def _said(look: Look, log: Path) -> list[str]:
    """Why a look stopped, what it was forced over, and the alarms in the last line of its log."""
    last = read_log(log)[-1]
    return [look.stopped, *(f"forced at {change}" for change in look.forced), *last["alarms"]]


def _numbers(make: Callable[[], list[float]]) -> Numbers:
    """Raises `ModelError` for numbers that are not finite, which no file may hold."""
    values = make()
    if not all(map(math.isfinite, values)):
        raise ModelError(
            "the held-out loss or distance is not finite before training", where="validation",
            remedy='set model.dtype = "float32", or look for damaged weights and windows',
        )  # fmt: skip
    return Numbers(values=tuple(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One arm to be trained: what it is made from, gathered so that nothing is loaded when its unit is there."""

    key: str
    project: Project
    arm: Arm
    recipe: TrainSection
    model: ModelRef
    made_by: dict[str, str]
    """The base model as it runs here (`cinetune.models.model_identity`)."""
    fingerprint: dict[str, str]
    entries: tuple[LatentEntry, ...]
    shared: FileRef
    folder: Path
    """Where the run keeps its checkpoint, log and samples."""
    judge: TrainSection | None = None
    """Whose noise levels and sampler validation uses; None = the recipe's own."""

    def _named(self, attention: str) -> dict[str, dict[str, Any]]:
        """Everything the run is made from by name, so that a refusal to go on can say what changed. `attention` is what
        computes, which `auto` leaves open.
        """
        from cinetune.training import code_fingerprint

        windows = {f"window {entry.window}": f"{entry.split} {entry.file.sha256[:12]}" for entry in self.entries}
        return {
            "data set": windows | {"empty prompt": self.shared.sha256[:12]},
            "recipe": flatten(self.recipe.model_dump(mode="json", exclude=NOT_RECIPE)),
            "base model": self.made_by | {"attention": attention},
            "first adapter": {name: sha[:12] for name, sha in _start_sha(self.project).items()},
            "code": code_fingerprint(),
        }

    def keep(self, report: Reporter) -> None:
        """Train, on all processes of the run; then the leading one exports, and records it in the store."""
        from cinetune.training import arrange

        config, store = self.project.config, self.project.store
        world = arrange(join_group(config.model, config.parallel), config.parallel)
        made = self.train(report, world)
        world.lead(lambda: store.unit(NAME, self.key, Look, made))

    def train(self, report: Reporter, world: World) -> Callable[[], Look]:
        """Load and train. The result is to be called by one process: it exports the adapter and says what it is."""
        from cinetune.models import load_model
        from cinetune.models.memory.fit import fit
        from cinetune.training import load_empty, load_of, train

        started = time.monotonic()
        config = self.project.config
        world.check_model(config.model)
        device = choose_device(config.model.device, config.model.dtype)
        place = ", ".join(filter(None, (device.name, world.describe())))
        report.say(f"training {self.arm} on {place}, {device.dtype} ({device.reason})")
        model = load_model(config.model, device=device, parts="denoiser", share=world.share)
        files = self._files("train")
        fitted = fit(
            model, config.model, self.recipe, device, report, load=load_of(files, self.recipe, world),
            memory=self.folder / "attention.json", agree=world.lead,
        )  # fmt: skip
        finished = train(
            model,
            files,
            load_empty(self.project.store.path(self.shared)),
            validator=self._validator(model, report, world),
            recipe=self.recipe,
            arm=self.arm,
            folder=self.folder,
            fingerprint=self._named(fitted.attention.name),
            force=self.project.force,
            report=report,
            start=self._start(model, report),
            world=world,
            trackers=self._trackers(report),
        )
        report.say(
            f"{self.arm}: {finished.stopped}; keeping step {finished.step}"
        )  # alarms: as raised, and in the notes
        return partial(self._record, model, finished, place, time.monotonic() - started)

    def _trackers(self, report: Reporter) -> Trackers:
        from cinetune.training.trackers import Trackers

        return Trackers(
            names=self.recipe.trackers, folder=self.folder / "trackers", project=self.project.config.name, run=self.arm,
            config=flatten(self.recipe.model_dump(mode="json")), report=report,
        )  # fmt: skip

    def _start(self, model: VideoModel, report: Reporter) -> dict[str, Tensor] | None:
        """The adapter to start from, of any origin, as this recipe's own; None = a fresh one."""
        from cinetune.models.adapters.export import adapter_metadata
        from cinetune.models.adapters.lora import start_from

        path, recipe = _start(self.project), self.recipe
        if path is None:
            return None
        base = adapter_metadata(path).get("base", "")
        if len(base) == 64 and base != model.info.weights_sha256:
            report.warn(f"{path.name} was trained on other weights of the same shape (base {base[:12]})")
        report.say(f"{self.arm} starts from {path.name}")
        return start_from(model, path, rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets)

    def _files(self, split: str) -> list[WindowFile]:
        from cinetune.training import check_finite, window_file

        store = self.project.store
        mine = sorted((entry for entry in self.entries if entry.split == split), key=lambda entry: entry.window)
        files = [window_file(entry.window, store.path(entry.file)) for entry in mine]
        for file in files:
            check_finite(file)
        if self.recipe.augment.probability > 0 and any(file.variants == 0 for file in files):
            raise StoreError(
                "the cache has no re-graded first frames",
                where=f"{self.arm}: train.augment",
                remedy="run `cinetune cache` again",
            )
        if split == "train" and not files:
            raise StoreError(
                "no window is left to train on",
                where=str(self.project.root),
                remedy="lower prepare.held_fraction or add footage",
            )
        return files

    def _validator(self, model: VideoModel, report: Reporter, world: World) -> Validator:
        from cinetune.training import Validator, each, own_net

        held, seen = self._files("held"), self._files("train")
        if not held:
            report.warn("no scene is held out: validation looks at training windows and cannot see overfitting")
            held = seen
        net, name = own_net(model, self.project.config.model)
        judge = self.judge or self.recipe
        return Validator(
            model,
            _spread(held, self.recipe.validation_windows),
            self._shots(_spread(held, self.recipe.validation_shots)),
            net=net,
            net_name=name,
            recipe=self.recipe.model_copy(update={"timesteps": judge.timesteps, "shift": judge.shift}),
            folder=self.folder / "samples",
            seen=_spread(seen, self.recipe.validation_windows),
            world=world,
            first=self._divided if world.size == 1 else each,
        )

    def _divided(self, pieces: Pieces) -> dict[str, list[float]]:
        """The pieces of the evaluation before training, each worked out by whichever arm comes to it first: they are
        the same for all.
        """
        from cinetune.training import code_fingerprint

        recipe = self.recipe.model_dump(mode="json", exclude=NOT_RECIPE | {"augment"})
        judge = self.judge.model_dump(mode="json") if self.judge else {}
        base = {name: value for name, value in self.fingerprint.items() if name != "recipe"}
        same = content_key("before training", VERSION, base, recipe, code_fingerprint(), judge)
        asked = {content_key(same, name): partial(_numbers, make) for name, make in pieces.items()}
        made = divided(self.project.store, NAME, Numbers, asked)
        return {name: list(one.values) for name, one in zip(pieces, made, strict=True)}

    def _shots(self, files: list[WindowFile]) -> list[HeldShot]:
        """Validation shots with the film's own pixels."""
        import torch

        from cinetune.footage.video import read_window
        from cinetune.training import HeldShot

        store = self.project.store
        clips, windows = store.need(Ingested).by_id, store.need(Prepared).by_id
        shots: list[HeldShot] = []
        for file in files:
            window = windows[file.id]
            frames = read_window(self.project.root, clips[window.clip], window)
            shots.append(HeldShot(file=file, truth_TCHW=torch.from_numpy(frames).permute(0, 3, 1, 2) * 2 - 1))
        return shots

    def _record(self, model: VideoModel, finished: Finished, device: str, wall_seconds: float) -> Look:
        from cinetune.models.adapters.export import save_adapter
        from cinetune.models.adapters.lora import lora_state

        project, recipe, config = self.project, self.recipe, self.project.config
        facts = {
            "base": model.info.name,
            "arm": self.arm,
            "trigger": config.prepare.trigger,
            "step": str(finished.step),
            "name": config.name,
        }
        with project.store.new_object(".safetensors") as (temporary, done):
            save_adapter(temporary, lora_state(model, self.arm), alpha=recipe.alpha, rank=recipe.rank, metadata=facts)
        dataset, recipe_sha = self.fingerprint["data set"], self.fingerprint["recipe"]
        made = provenance(
            seed=recipe.seed,
            config_sha=section_sha(config, STAGE.sections),
            parents=(dataset, model.info.weights_sha256),
            device=device,
            wall_seconds=wall_seconds,
        )
        return Look(
            name=config.name,
            arm=self.arm,
            model=self.model,
            rank=recipe.rank,
            alpha=recipe.alpha,
            targets=recipe.targets,
            step=finished.step,
            stopped=finished.stopped,
            trigger=config.prepare.trigger,
            dataset_sha=dataset,
            recipe_sha=recipe_sha,
            weights=done[0],
            log=project.store.add(self.folder / "log.jsonl"),
            licence=model.info.release.licence,
            provenance=made,
            forced=finished.forced,
        )


STAGE = Stage(
    result=Trained, make=make, inputs=inputs, parents=(Ingested, Prepared, Cached), sections=("model", "train"),
    model=True, together=True,
)  # fmt: skip
run = STAGE.run


def _spread(files: list[WindowFile], count: int) -> list[WindowFile]:
    """`count` of the files, or all, at equal distances: files of one scene lie side by side."""
    count = min(count, len(files))
    return [files[number * len(files) // count] for number in range(count)]
