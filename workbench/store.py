"""Growing records: a zarr store beside the output, written by region, readable while it grows and after a kill.

zarr format 2, because texts have no stable form in format 3 yet (zarr 3.2 warns of it).
"""

import shutil
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from .record import unwritable
from .schema import Progress, Slab

STEPS_PER_CHUNK = 256


def partial_path(path: str | Path) -> Path:
    """Where the record meant for `path` grows."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial.zarr")


class Store:
    """The zarr twin of a record in memory: made blank, then brought up to date by `flush`."""

    def __init__(self, record: xr.DataTree, path: Path) -> None:
        self.record, self.path = record, path
        self.behind: dict[str, tuple[int, int]] = {}
        blank = path.with_name(f".{path.name}")
        shutil.rmtree(blank, ignore_errors=True)
        try:
            # Made under another name: what stands at `path` is whole at any moment.
            record.to_zarr(blank, zarr_format=2, consolidated=False, write_inherited_coords=False, encoding=_chunks(record))
            blank.rename(path)
        except OSError as error:
            shutil.rmtree(blank, ignore_errors=True)
            raise unwritable(path, error) from error
        self.group = zarr.open_group(path, mode="r+")

    def note(self, item: Slab | Progress) -> None:
        """Remember which steps of which node have changed since the last flush."""
        if isinstance(item, Slab):
            node = f"every_{item.clock}"
            first, last = self.behind.get(node, (item.steps[0], item.steps[-1]))
            self.behind[node] = (min(first, item.steps[0]), max(last, item.steps[-1]))

    def flush(self) -> None:
        """Write the changed steps and the events; InputError if the system refuses."""
        try:
            self._write()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _write(self) -> None:
        for name, (first, last) in self.behind.items():
            node = self.record[name].to_dataset(inherit=False)
            where = slice(*np.searchsorted(node["step"].values, [first, last + 1]))
            for variable, da in node.data_vars.items():
                self.group[name][variable][:, where] = da.values[:, where]
        self.behind.clear()
        for variable, da in self.record["events"].to_dataset(inherit=False).data_vars.items():
            self.group["events"][variable][:] = da.values

    def remove(self) -> None:
        """Delete the store, once the finished record is saved."""
        shutil.rmtree(self.path)


def _chunks(record: xr.DataTree) -> dict[str, dict[str, dict[str, tuple[int, ...]]]]:
    out = {}
    for name, node in record.children.items():
        by_name = {v: da for v, da in node.data_vars.items() if "step" in da.dims and da.size}
        out[f"/{name}"] = {v: {"chunks": (da.shape[0], min(STEPS_PER_CHUNK, da.shape[1]), *da.shape[2:])} for v, da in by_name.items()}
    return out
