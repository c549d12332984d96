"""Opening records: shipped ones by name, files by path. Everything read is data; what is not a record is refused in a sentence."""

from pathlib import Path

import psutil
import xarray as xr

from .catalogue import entries
from .errors import InputError, unknown
from .older import brought_up
from .places import datasets
from .record import MARK, of_each_run
from .schema import VERSION
from .store import partial_path


def open_record(name: str | Path) -> xr.DataTree:
    """The shipped record of a study, or the record in a file.

    `name` is a study's name or a path; an unfinished run of `out=path` is found beside it. Raises InputError for anything
    that is not a whole record of this schema.
    """
    path = Path(name)
    if not path.exists() and partial_path(path).exists():
        path = partial_path(path)
    elif not path.suffix and not path.is_file():
        path = _shipped(str(name))
    if not path.exists():
        raise InputError(f"There is no file {str(path)!r}; give the path of a record, or the name of a study that ships one.")
    return _read(path)


def _shipped(name: str) -> Path:
    path = datasets() / f"{name}.nc"
    if not path.exists():
        known = [e.name for e in entries()]
        if name in known:
            raise InputError(f"Study {name!r} ships no record; make one with: workbench run {name} --out {name}.nc")
        raise unknown("shipped record", name, [p.stem for p in datasets().glob("*.nc")])
    return path


def _read(path: Path) -> xr.DataTree:
    try:
        engine = "zarr" if path.is_dir() else "netcdf4"
        options = dict(consolidated=False) if engine == "zarr" else {}
        with xr.open_datatree(path, engine=engine, decode_times=False, **options) as tree:
            _check(tree, path)
            loaded = brought_up(of_each_run(tree.load()))
    except InputError:
        raise
    except Exception as error:  # netCDF4, h5 and zarr raise many kinds for a broken file; all mean the same to a person
        raise InputError(
            f"{str(path)!r} cannot be read as a record: it is truncated, damaged or of another format ({type(error).__name__})."
        ) from error
    loaded.encoding["source"] = str(path)
    return loaded


def _check(tree: xr.DataTree, path: Path) -> None:
    if str(tree.attrs.get("format")) != MARK:
        raise InputError(f"{str(path)!r} is not a record of this workbench; make one with wb.run(..., out=...) or `workbench run`.")
    found = int(tree.attrs.get("schema_version", 0))
    if found != VERSION:
        remedy = "run the study again" if found < VERSION else "install a newer workbench"
        raise InputError(f"{str(path)!r} has record schema {found}, this workbench reads schema {VERSION}; {remedy}.")
    for part in ("events", "timeline"):
        if part not in tree.children:
            raise InputError(f"{str(path)!r} lacks the node {part!r} and is not a whole record; run the study again.")
    size = sum(node.to_dataset(inherit=False).nbytes for node in tree.subtree)
    if size > psutil.virtual_memory().available:
        raise InputError(f"{str(path)!r} would take {size / 1e9:.1f} GB of memory, more than is free; open a part of it with xarray.")
