"""Growing records: a zarr store beside the output, written by region, readable while it grows and after a kill.

zarr format 2, because texts have no stable form in format 3 yet (zarr 3.2 warns of it).
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from .record import unwritable
from .schema import Progress, Slab

RUNS_PER_CHUNK = 64
STEPS_PER_CHUNK = 256


def partial_path(path: str | Path) -> Path:
    """Where the record meant for `path` grows."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial.zarr")


class Store:
    """The zarr twin of a record in memory: made blank, or found as an earlier run left it; then brought up to date by `flush`."""

    def __init__(self, record: xr.DataTree, path: Path) -> None:
        self.record, self.path = record, path
        self.behind: dict[str, set[tuple[int, int]]] = {}
        if not path.exists():
            self._make()
        self.group = zarr.open_group(path, mode="r+")

    def note(self, item: Slab | Progress) -> None:
        """Remember which chunks of which node have changed since the last flush."""
        if isinstance(item, Slab):
            node = f"every_{item.clock}"
            places = np.searchsorted(self.record[node]["step"].values, [item.steps[0], item.steps[-1]]) // STEPS_PER_CHUNK
            runs = {run // RUNS_PER_CHUNK for run in item.runs}
            changed = {(block, place) for block in runs for place in range(places[0], places[1] + 1)}
            self.behind.setdefault(node, set()).update(changed)

    def flush(self, **attrs: Any) -> None:
        """Write the changed chunks, the events and these attributes; InputError if the system refuses."""
        try:
            self._write()
            self.group.attrs.update(attrs)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _make(self) -> None:
        blank = self.path.with_name(f".{self.path.name}")
        shutil.rmtree(blank, ignore_errors=True)
        try:
            # Made under another name: what stands at `path` is whole at any moment.
            _write_files(blank, self._blank_files())
            blank.rename(self.path)
        except OSError as error:
            shutil.rmtree(blank, ignore_errors=True)
            raise unwritable(self.path, error) from error

    def _blank_files(self) -> dict[str, Buffer]:
        files: dict[str, Buffer] = {}
        options = dict(zarr_format=2, consolidated=False, write_inherited_coords=False, encoding=_chunks(self.record))
        self.record.to_zarr(MemoryStore(files), **options)
        return files

    def _write(self) -> None:
        for name, changed in self.behind.items():
            node = self.record[name].to_dataset(inherit=False)
            for where in _regions(changed):
                for variable, da in node.data_vars.items():
                    self.group[name][variable][where] = da.values[where]
        self.behind.clear()
        events = self.record["events"].to_dataset(inherit=False).data_vars
        for variable in sorted(events, key="steps_done".__eq__):  # last, as it says that all the others are there
            self.group["events"][variable][:] = events[variable].values


def _write_files(folder: Path, files: Mapping[str, Buffer]) -> None:
    """Two hundred small files; zarr itself takes twice as long for them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.to_bytes())


def _regions(changed: set[tuple[int, int]]) -> Iterator[tuple[slice, slice]]:
    for run, step in sorted(changed):
        yield slice(run * RUNS_PER_CHUNK, (run + 1) * RUNS_PER_CHUNK), slice(step * STEPS_PER_CHUNK, (step + 1) * STEPS_PER_CHUNK)


def _chunks(record: xr.DataTree) -> dict[str, dict[str, dict[str, tuple[int, ...]]]]:
    out = {}
    for name, node in record.children.items():
        by_name = {v: da for v, da in node.data_vars.items() if "step" in da.dims and da.size}
        sizes = {v: (min(RUNS_PER_CHUNK, da.shape[0]), min(STEPS_PER_CHUNK, da.shape[1]), *da.shape[2:]) for v, da in by_name.items()}
        out[f"/{name}"] = {v: {"chunks": size} for v, size in sizes.items()}
    return out
