"""Records of earlier versions, brought up to the words of this one when they are opened."""

import json

import numpy as np
import xarray as xr

from .record import with_nodes

PLACES = ("weights", "activations", "gradients", "optimizer_state", "logits", "softmax")
FORMATS = {False: "no", True: "bits"}
ADDED = {"round_sums": "no", "rounding": "nearest", "scaling": "none"}


def brought_up(record: xr.DataTree) -> xr.DataTree:
    """The record with each place of rounding by the name of its format, where it was only on or off, and how it was rounded."""
    names = {f"round_{place}" for place in PLACES}
    changed = {name: c for name, c in record.to_dataset().coords.items() if name in names and c.dtype == bool}
    if not changed:
        return record
    root = record.to_dataset()
    root = root.assign_coords({name: ("run", np.full(root.sizes["run"], value)) for name, value in ADDED.items()})
    root = root.assign_coords({name: (c.dims, np.where(c.values, FORMATS[True], FORMATS[False]), c.attrs) for name, c in changed.items()})
    return with_nodes(record, **{"/": root, "timeline": _named(record["timeline"].to_dataset(inherit=False), names)})


def _named(timeline: xr.Dataset, names: set[str]) -> xr.Dataset:
    is_place = np.isin(timeline["knob"].values, list(names))
    for column in ("old", "new"):
        texts = [_format(text) if here else text for text, here in zip(timeline[column].values.tolist(), is_place, strict=True)]
        timeline = timeline.assign({column: (timeline[column].dims, np.array(texts, "<U64"), timeline[column].attrs)})
    return timeline


def _format(text: str) -> str:
    value = json.loads(text)
    return json.dumps(FORMATS.get(value, value))
