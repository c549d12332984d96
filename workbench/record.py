"""Records: one labelled DataTree per experiment, how it grows, is saved, is opened and is read.

Root: the `run` axis with `seed` and every knob as coordinates, provenance as attributes. One child per clock (`every_1`,
`every_10`, ...) with its own `step`; `events` holds numbers per run, `timeline` the changes made while training.
"""

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .claim import Claim, Verdict, judge
from .dims import DIMS
from .errors import InputError, unknown
from .schema import VERSION, Change, Progress, Schema, Slab, ticks

MARK = "stability-workbench"
DIGITS = 4
BITS = 12  # of the mantissa, an error of at most 1.3e-4
SMALL = 4096  # bytes, below which packing takes more than it saves
TIMELINE = {
    "changed_run": "run that was changed",
    "at_step": "the change acts from this update on",
    "parent": "run forked from, in the record it came from (-1: changed in place)",
    "knob": "knob that was changed",
    "old": "value before, as JSON",
    "new": "value after, as JSON",
}


def blank(schema: Schema) -> xr.DataTree:
    """The record that a schema describes, nothing measured yet: NaN everywhere, no updates made."""
    nodes = {f"/every_{clock}": _node(schema, clock) for clock in schema.clocks()}
    runs = len(schema.rows)
    nodes["/events"] = xr.Dataset(
        {
            "steps_done": ("run", np.full(runs, schema.start), _attrs("updates made", "step")),
            "diverged_step": ("run", np.full(runs, np.nan), _attrs("first step with a non-finite loss or parameter (NaN: none)", "step")),
        }
    )
    nodes["/timeline"] = timeline(())
    return xr.DataTree.from_dict({"/": _root(schema), **nodes})


def timeline(changes: Sequence[Change]) -> xr.Dataset:
    """The node of changes made while training, one entry a change."""
    texts = {"knob": [c.knob for c in changes], "old": [json.dumps(c.old) for c in changes], "new": [json.dumps(c.new) for c in changes]}
    numbers = {"changed_run": [c.run for c in changes], "at_step": [c.step for c in changes], "parent": [c.parent for c in changes]}
    columns = {k: np.array(v, "int64") for k, v in numbers.items()}
    columns |= {k: np.array(v, None if v else "<U64") for k, v in texts.items()}
    return xr.Dataset({name: ("change", values, _attrs(TIMELINE[name])) for name, values in columns.items()})


def _root(schema: Schema) -> xr.Dataset:
    coords: dict[str, Any] = {"run": ("run", np.arange(len(schema.rows)), _attrs(DIMS["run"]))}
    for name in schema.rows[0]:
        meta = schema.columns.get(name, dict(units="1", long_name=name))
        coords[name] = ("run", np.array([row[name] for row in schema.rows]), dict(meta))
    return xr.Dataset(coords=coords, attrs={"format": MARK, "schema_version": VERSION, "steps": schema.stop, **schema.attrs})


def _node(schema: Schema, clock: int) -> xr.Dataset:
    steps = ticks(clock, schema.start, schema.stop)
    variables = [v for v in schema.variables if v.clock == clock]
    data = {}
    for v in variables:
        shape = (len(schema.rows), len(steps), *(len(schema.labels[d]) for d in v.dims))
        data[v.name] = (("run", "step", *v.dims), _empty(shape, v.dtype), dict(v.attrs))
    used = dict.fromkeys(dim for v in variables for dim in v.dims)
    coords: dict[str, Any] = {dim: (dim, list(schema.labels[dim]), _attrs(DIMS[dim])) for dim in used}
    coords["step"] = ("step", steps, _attrs(DIMS["step"], "step"))
    if len(schema.phases) > 1:
        names = [[name for name, first in schema.phases if first <= min(s, schema.stop - 1)][-1] for s in steps]
        coords["phase"] = ("step", names, _attrs("stretch of the run"))
    return xr.Dataset(data, coords)


def _empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.full(shape, np.nan, dtype) if np.issubdtype(np.dtype(dtype), np.floating) else np.zeros(shape, dtype)


def _attrs(long_name: str, units: str = "") -> dict[str, str]:
    return {"long_name": long_name} | ({"units": units} if units else {})


def clocks_of(record: xr.DataTree) -> dict[str, int]:
    """Measured variable to the clock it is on."""
    nodes = {int(name.removeprefix("every_")): node for name, node in record.children.items() if name.startswith("every_")}
    return {str(name): clock for clock, node in nodes.items() for name in node.data_vars}


def fill(record: xr.DataTree, item: Slab | Progress) -> None:
    """Write what the engine measured into the record."""
    if isinstance(item, Progress):
        events = record["events"].dataset
        events["steps_done"].values[list(item.runs)] = item.done
        diverged = np.array(item.diverged, float)
        events["diverged_step"].values[list(item.runs)] = np.where(diverged >= 0, diverged, np.nan)
        return
    node = record[f"every_{item.clock}"].dataset
    first = int(np.searchsorted(node["step"].values, item.steps[0]))
    for name, values in item.values.items():
        dims = node[name].dims[2:]
        places = [node.indexes[dim].get_indexer(list(item.labels[dim])) for dim in dims]
        where = np.ix_(list(item.runs), range(first, first + len(item.steps)), *places)
        node[name].values[where] = values


def with_nodes(record: xr.DataTree, **nodes: xr.Dataset) -> xr.DataTree:
    """A copy of the record with some nodes replaced, the root by the name "/"."""
    return xr.DataTree.from_dict(
        {"/": record.to_dataset(), **{k: n.to_dataset(inherit=False) for k, n in record.children.items()}, **nodes}
    )


def with_events(record: xr.DataTree, events: Iterable[Any]) -> xr.DataTree:
    """The record with a study's events read off its curves."""
    node = record["events"].to_dataset(inherit=False)
    for event in events:
        node[event.name] = ("run", np.asarray(event.fn(record), float), _attrs(event.doc, event.units))
    return with_nodes(record, events=node)


def with_claims(record: xr.DataTree, claims: Iterable[Claim]) -> xr.DataTree:
    """The record with the verdicts on a study's claims as attribute `claims`, JSON; undecided where its runs do not bear on one."""
    verdicts = [_verdict(claim, record).as_dict() for claim in claims]
    record = with_nodes(record)
    record.attrs["claims"] = json.dumps(verdicts, allow_nan=False)
    return record


def _verdict(claim: Claim, record: xr.DataTree) -> Verdict:
    try:
        return judge(claim, record)
    except (LookupError, ValueError):  # the design lacks the runs, or varies more, than the claim compares
        return judge(replace(claim, effect=lambda record: ()), record)


def save(record: xr.DataTree, path: str | Path, *, rounded: bool = False, overwrite: bool = False) -> Path:
    """Write a record as one NetCDF file; `rounded` keeps 4 significant digits of every curve, as shipped records do.

    A knob that all runs share is written as one value, which `wb.open` gives to each run again. Raises InputError if the path exists
    (unless `overwrite`) or cannot be written. An existing file is replaced only at the end.
    """
    path = writable(path, overwrite=overwrite)
    nodes = {"/": _shared_once(record.to_dataset())} | {f"/{name}": n.to_dataset(inherit=False) for name, n in record.children.items()}
    written = xr.DataTree.from_dict(nodes)
    encoding = {
        name: {v: _encoding(x, rounded and name.startswith("/every_")) for v, x in node.variables.items()} for name, node in nodes.items()
    }
    partial = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written.to_netcdf(partial, engine="netcdf4", encoding=encoding)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as a RuntimeError
        raise unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _shared_once(root: xr.Dataset) -> xr.Dataset:
    """The root with every knob that all runs share as a coordinate without a dimension."""
    values = {name: root[name].values for name in root.coords if name != "run"}
    shared = [name for name, each in values.items() if len(each) > 1 and (each == each[0]).all()]
    return root.assign_coords({name: root[name].variable[0] for name in shared})


def of_each_run(record: xr.DataTree) -> xr.DataTree:
    """The record with every knob over `run`, also those that its file has once for all runs."""
    root = record.to_dataset()
    shared = {name: knob for name, knob in root.coords.items() if not knob.dims}
    spread = {name: ("run", np.full(root.sizes["run"], knob.values), knob.attrs) for name, knob in shared.items()}
    return with_nodes(record, **{"/": root.assign_coords(spread)[list(root.coords)]}) if spread else record


def _encoding(variable: xr.Variable, rounded: bool) -> dict[str, Any]:
    texts = variable.dtype.kind in "UO" and variable.size > 0
    encoding: dict[str, Any] = dict(dtype="S1") if texts else {}  # texts of variable length take ten times the space
    if variable.nbytes < SMALL or not (texts or variable.dtype.kind in "fiu"):
        return encoding
    encoding |= dict(zlib=True, complevel=9, shuffle=True)
    if rounded and variable.dtype.kind == "f":
        # GranularBitRound makes -0 of infinity.
        digits, mode = (BITS, "BitRound") if np.isinf(variable.values).any() else (DIGITS, "GranularBitRound")
        encoding |= dict(significant_digits=digits, quantize_mode=mode)
    return encoding


def writable(path: str | Path, *, overwrite: bool = False) -> Path:
    """`path`, if a new file can be made there; InputError otherwise. Makes nothing: the folder comes with the file."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"Output {str(path)!r} is a directory; give the name of a file.")
        if path.exists() and not overwrite:
            raise InputError(f"Output {str(path)!r} exists; give another name, or replace it with overwrite=True (--force).")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def unwritable(path: Path, error: Exception) -> InputError:
    """The error for an output that the system refuses."""
    return InputError(f"Output {str(path)!r} cannot be written ({getattr(error, 'strerror', None) or error}); give another place.")


@xr.register_datatree_accessor("wb")
class Accessor:
    """`record.wb`: variables by name with the knobs attached, and the hypercube over swept knobs."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    @property
    def variables(self) -> list[str]:
        """Names of all measured variables and events."""
        return [name for node in self._nodes() for name in node.data_vars]

    @property
    def knobs(self) -> list[str]:
        """Names of `seed` and the knobs, the coordinates of the run axis."""
        return [name for name in self._tree.coords if name != "run"]

    @property
    def varied(self) -> list[str]:
        """The knobs that differ between runs."""
        return [name for name in self.knobs if len(np.unique(self._tree[name].values)) > 1]

    @property
    def runs(self) -> Any:
        """A table of the runs: varied knobs and events, as a pandas DataFrame."""
        events = self._tree["events"].to_dataset(inherit=False)
        return xr.merge([self._tree.to_dataset().reset_coords()[self.varied], events]).to_dataframe()

    def __getitem__(self, name: str) -> xr.DataArray:
        for node in self._nodes():
            if name in node.data_vars:
                return node[name].assign_coords(self._tree.to_dataset().coords)
        raise unknown("variable", name, self.variables)

    def __contains__(self, name: str) -> bool:
        return name in self.variables

    def where(self, **knobs: Any) -> xr.DataTree:
        """The record of the runs with these knob values (a value or several)."""
        keep = np.ones(self._tree.sizes["run"], bool)
        for name, values in knobs.items():
            if name not in self.knobs:
                raise unknown("knob", name, self.knobs)
            keep &= np.isin(self._tree[name].values, np.atleast_1d(values))
        if not keep.any():
            raise InputError(f"No run has {', '.join(f'{k} = {v!r}' for k, v in knobs.items())}; see record.wb.runs.")
        chosen = np.flatnonzero(keep)
        nodes = {k: n.to_dataset(inherit=False) for k, n in self._tree.children.items()}
        return xr.DataTree.from_dict(
            {"/": self._tree.to_dataset().isel(run=chosen), **{k: n.isel(run=chosen) if "run" in n.dims else n for k, n in nodes.items()}}
        )

    def cube(self, name: str, *axes: str) -> xr.DataArray:
        """The variable with one dimension per named knob instead of `run`.

        Every knob that varies must be among `axes`; take a part of the record with `where` first.
        """
        for axis in axes:
            if axis not in self.knobs:
                raise unknown("knob", axis, self.knobs)
        if len(set(axes)) < max(1, len(axes)):
            raise InputError("Name the knobs that become dimensions, each once: record.wb.cube('train_loss', 'lr', 'seed').")
        if missing := [k for k in self.varied if k not in axes]:
            raise InputError(
                f"Knob {missing[0]!r} varies too; add it to the axes or choose a value with record.wb.where({missing[0]}=...)."
            )
        values = self[name]
        constant = [k for k in self.knobs if k not in axes]
        values = values.drop_vars(["run", *constant]).assign_coords({k: self._tree[k].values[0] for k in constant})
        return values.set_index(run=list(axes)).unstack("run") if len(axes) > 1 else values.swap_dims(run=axes[0])

    def _nodes(self) -> list[xr.Dataset]:
        return [node.to_dataset() for name, node in self._tree.children.items() if name != "timeline"]
