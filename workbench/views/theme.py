"""How every chart looks: one Altair theme, colours that colour-blind readers can tell apart, and how numbers and names are written.

Categories take the colours of Okabe and Ito (https://jfly.uni-koeln.de/color/), without black, which stands for text, and with
yellow last, which is faint on white. Ordered values take viridis, a perceptually uniform ramp, without its palest part.
"""

import math
import sys
import textwrap
from typing import Any

import numpy as np

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#F0E442")
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "triangle-right", "triangle-left", "cross")
VIRIDIS = "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"  # at 0, 1/9, ... 1
PALEST = 0.78
STATUS = {"holds": "#009E73", "fails": "#D55E00", "undecided": "#7F7F7F"}
CROSS = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"  # an x; the named "cross" is a plus
INK, FAINT, GRID = "#1f2328", "#59636e", "#e4e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
DIGITS = 4
LONGEST = 48


def enable(altair: Any) -> None:
    """Register the theme under the name `workbench` and enable it; in a notebook, draw without a network.

    Altair's own default renderer loads Vega from a server; another one that was chosen stays.
    """
    altair.theme.register("workbench", enable=True)(_theme)
    if "ipykernel" in sys.modules and altair.renderers.active == "default":
        altair.renderers.enable("svg")


def _theme() -> dict[str, Any]:
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 600}
    uncut = {"labelLimit": 0, "titleLimit": 0}
    lines = {"gridColor": GRID, "domainColor": FAINT, "tickColor": FAINT, "labelOverlap": True, "titlePadding": 8}
    config = {
        "background": "white",
        "font": FONT,
        "view": {"stroke": GRID},
        "title": {"color": INK, "subtitleColor": FAINT, "fontSize": 15, "subtitleFontSize": 12, "anchor": "start", "offset": 10},
        "axis": text | uncut | lines,
        "legend": text | uncut | {"symbolLimit": 0, "symbolStrokeWidth": 2.5, "offset": 14},
        "header": text | uncut | {"labelFontWeight": 600, "labelPadding": 6},
        "range": {"category": list(CATEGORIES), "ordinal": ramp(8)},
        "line": {"strokeWidth": 1.3},
        "rule": {"color": FAINT},
        "text": {"color": INK, "fontSize": 12},
    }
    return {"config": config}


def ramp(n: int) -> list[str]:
    """`n` colours in order, dark to pale."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in VIRIDIS.split()])
    at = np.linspace(0, PALEST, n) if n > 1 else np.array([0.0])
    channels = [np.interp(at, np.linspace(0, 1, len(stops)), stop) for stop in stops.T]
    return ["#{:02x}{:02x}{:02x}".format(*map(round, rgb)) for rgb in zip(*channels, strict=True)]


def number(value: Any) -> str:
    """A number as a person writes it: 4 significant digits, `3e-5` rather than `3e-05`; whole numbers in full; a dash for none."""
    if value is None or not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "–")
    if isinstance(value, (int, np.integer)) or (float(value).is_integer() and abs(value) < 1e6):
        return str(int(value))
    mantissa, e, exponent = f"{float(value):.{DIGITS}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def word(value: Any) -> str:
    """A knob's value as text of bounded length."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, np.number)):
        return number(value)
    return shortened(str(value))


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` on one line, cut with an ellipsis where it is longer than `longest`; what cannot be printed becomes a space."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(character if character.isprintable() else " " for character in text)


def rounded(values: Any) -> np.ndarray:
    """The numbers to 4 significant digits, so that their text is short."""
    values = np.asarray(values, float)
    with np.errstate(all="ignore"):
        places = DIGITS - 1 - np.floor(np.log10(np.abs(values)))
        small, large = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
        out = np.round(values / large * small) / small * large
    return np.where(np.isfinite(out), out, values)


def label(da: Any, text: str | None = None) -> str:
    """What an axis of this variable is called: its long name and its units in brackets."""
    units = str(da.attrs.get("units", "1"))
    name = shortened(text or str(da.attrs.get("long_name") or da.name), 120)
    return name if units in ("", "1") else f"{name} [{shortened(units, 20)}]"


def wrapped(text: str, width: int = 42) -> list[str]:
    """`text` in lines of at most `width` characters, as a title that is not cut off."""
    return textwrap.wrap(text, width) or [""]
