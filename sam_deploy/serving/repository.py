"""The models of a server, each watched: a new version in its place is loaded, and swapped in."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sam_deploy.errors import InputError, SamDeployError
from sam_deploy.serving.failures import NotFound
from sam_deploy.serving.image_model import ImageModel
from sam_deploy.serving.metrics import Metrics
from sam_deploy.serving.model import Model
from sam_deploy.serving.names import SUFFIX, bundle_folder, model_names
from sam_deploy.serving.options import ServeOptions
from sam_deploy.serving.servable import Servable
from sam_deploy.serving.snapshot import Identity, copied, identity
from sam_deploy.serving.worker import WorkerDied

_log = logging.getLogger(__name__)


class _Place:
    """Where a model's bundle is put; `model` is the version that is served."""

    def __init__(self, name: str, bundle: Path) -> None:
        self.name, self.bundle = name, bundle
        self.version = 0
        self.seen: Identity | None = None
        self.changing: Identity | None = None
        self.model: Model | None = None
        self.images: ImageModel | None = None


class Repository:
    """Serves the bundles in these folders, each under its folder's name.

    Raises:
        InputError: two have one name, or a name is none for the protocol.
    """

    def __init__(self, bundles: Sequence[Path], options: ServeOptions, metrics: Metrics) -> None:
        names = model_names(bundles)
        for option in (options.max_batch, options.max_delay_ms):
            unknown = set(option) - {"", *names}
            if unknown:
                raise InputError(
                    f"no model is called {unknown.pop()!r}; there is {', '.join(names)}"
                )
        self._places = {
            name: _Place(name, bundle_folder(path))
            for name, path in zip(names, bundles, strict=True)
        }
        self._options = options
        self._metrics = metrics
        self._work = Path(tempfile.mkdtemp(prefix="sam-serve-"))
        self._executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._servables: dict[str, Servable] = {}

    async def open(self) -> None:
        """Load all of them, and watch for new versions.

        Raises:
            SamDeployError: one does not load; says which and why.
        """
        for place in self._places.values():
            place.seen = identity(place.bundle)
            await self._load(place)
        if self._options.reload_s is not None:
            self._watch = asyncio.create_task(self._watched(self._options.reload_s))

    async def close(self) -> None:
        """Answer what was asked, and free everything."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        models = [place.model for place in self._places.values() if place.model]
        await asyncio.gather(*(model.close() for model in models), *self._closing)
        self._executor.shutdown(cancel_futures=True)
        shutil.rmtree(self._work, ignore_errors=True)

    def __iter__(self) -> Iterator[Servable]:
        return iter(list(self._servables.values()))

    def get(self, name: str, version: str = "") -> Servable:
        """The model `name`, in the version that is served.

        Raises:
            NotFound: there is none of that name, or it is served in another version.
        """
        found = self._servables.get(name)
        if found is None:
            known = ", ".join(self._servables)
            raise NotFound(f"unknown model {name[:80]!r}; there is {known}")
        if version not in ("", found.version):
            raise NotFound(
                f"{name} is served in version {found.version}, not {version[:20]}; leave it out"
            )
        return found

    @property
    def ready(self) -> bool:
        """Whether all models are."""
        return bool(self._servables) and all(one.ready for one in self._servables.values())

    async def _load(self, place: _Place) -> None:
        version = place.version + 1
        folder = self._work / f"{place.name}.{version}"
        manifest = await asyncio.to_thread(copied, place.bundle, folder)
        metrics = self._metrics.of(place.name)
        model = Model(place.name, str(version), manifest, folder, self._options, metrics)
        try:
            await model.open()
        except BaseException as error:
            await model.close()
            if isinstance(error, SamDeployError):  # of the copy, which nobody knows
                said = str(error).replace(str(folder), str(place.bundle))
                raise type(error)(said) from None
            raise
        old, place.model, place.version = place.model, model, version
        self._servables[model.name] = model
        kind = manifest.model
        if kind.kind == "classifier" and kind.num_classes:
            images = ImageModel(model, self._executor, self._options.max_image_px)
            self._servables[images.name] = images
        else:
            self._servables.pop(model.name + SUFFIX, None)
        _log.info("%s version %s: %s on %s", model.name, version, *model.about.values())
        for reason in model.runs.passed_over:
            said = reason.replace(str(folder), str(place.bundle))
            _log.info("%s: not on %s", model.name, said)
        if old is not None:
            task = asyncio.create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _watched(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            for place in self._places.values():
                try:
                    await self._look(place)
                except Exception:  # whatever it is, the others are watched on
                    _log.exception("%s: looking for a new version failed", place.name)

    async def _look(self, place: _Place) -> None:
        now = await asyncio.to_thread(identity, place.bundle)
        settled, place.changing = now == place.changing, now
        if now is None or now == place.seen or not settled:  # still being written, perhaps
            return
        place.seen = now
        metrics = self._metrics.of(place.name)
        try:
            await self._load(place)
            metrics.swapped("taken")
        except (SamDeployError, WorkerDied) as error:
            metrics.swapped("refused")
            _log.error(
                "%s: the new version is refused, version %s stays: %s",
                place.name,
                place.version,
                error,
            )
