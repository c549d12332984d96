"""The front: the panel as one anywidget. Python sends plain values and tables, the browser sends the buttons that were pressed."""

import hashlib
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .. import places
from ..views import gauges as drawn
from ..views.extras import alt, extra
from .controls import SEEDS, groups
from .desk import COMMANDS, Desk
from .packing import packed
from .player import Player, Task

HERE = Path(__file__).parent
SCRIPTS = ("chart.js", "controls.js", "panel.js")
SLOW_SECONDS = 0.5
LATE_SECONDS = 2.0  # after which what was sent last counts as lost
ALONE_SECONDS = 60.0
SNIPPET = "export default vegaEmbed"


class Vega(anywidget.AnyWidget):
    """Holds Vega for all panels of a kernel, so that it is sent once; nothing is loaded from a network."""

    _esm = "export default {}"
    code = traitlets.Unicode().tag(sync=True)
    mark = traitlets.Unicode().tag(sync=True)


class Front(anywidget.AnyWidget):
    """What is on the screen: the controls (`setup`), the charts, what is said (`state`) and the tables of
    the charts (`data`, and `slow` those of maps and pictures), the latest only."""

    _esm = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    _css = (HERE / "panel.css").read_text(encoding="utf-8")
    setup = traitlets.Dict().tag(sync=True)
    charts = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    slow = traitlets.Dict().tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)
    interpreted = traitlets.Bool(False).tag(sync=True)  # charts without eval, for pages whose policy forbids it
    vega = traitlets.Unicode().tag(sync=True)

    def __init__(self, player: Player, **given: Any) -> None:
        super().__init__(vega=f"IPY_MODEL_{_vega().model_id}", **given)
        self._player, self._sent, self._drawn, self._slow_at = player, 0, None, 0.0
        self._pages: dict[str, float] = {}  # those that show it, and when each was last heard of
        self._seen, self._sent_at = 0, 0.0
        self.on_msg(self._pressed)

    def take(self, desk: Desk, speed: float) -> None:
        """Show the desk as it stands; while it trains maps and pictures follow at a pace at which people look.

        While it trains nothing is sent before a page has got what was sent last, or a while has gone by: nothing queues. Where no page has
        been heard of for a minute it pauses.
        """
        now = time.time()
        if desk.running and self._pages and now - max(self._pages.values()) > ALONE_SECONDS:
            self._pages.clear()
            desk.running, desk.message = False, "Paused, as no page has shown it for a minute."
        if desk.running and self._seen < self._sent and now - self._sent_at < LATE_SECONDS:
            return
        self._sent, self._sent_at = self._sent + 1, now
        slow = [name for name in desk.shown if desk.gauges[name].kind != "curve"]
        is_due = not desk.running or now - self._slow_at >= SLOW_SECONDS
        with self.hold_sync():
            drawn_now = (tuple(sorted(desk.shown)), tuple(sorted(name for name, on in desk.logarithmic.items() if on)))
            if drawn_now != self._drawn:
                self._drawn, self.charts, is_due = drawn_now, charts_of(desk), True
            self.state = {**desk.state(), "speed": round(speed, 1)}
            about = {"sent": self._sent, "at": now, "last": desk.seen().last}
            self.data = {**about, "tables": {name: _tables(desk, name) for name in desk.shown if name not in slow}}
            if is_due:
                self._slow_at, self.slow = now, {**about, "tables": {name: _tables(desk, name) for name in slow}}

    def _pressed(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        """Store what was pressed; the player's thread does the rest. What no front of ours sends is passed over."""
        if not isinstance(content, dict):
            return
        page, wanted, button, arguments = (content.get(name) for name in ("page", "ask", "button", "arguments"))
        if isinstance(page, str):
            self._heard(page, content.get("seen"))
        elif wanted in ("python", "shared"):
            self._player.ask(Task(wanted, compute=lambda desk: self.send({"said": wanted, "text": getattr(desk, wanted)})))
        elif button in COMMANDS and isinstance(arguments, dict | None) and not (button == "save" and is_served()):
            self._player.ask(Task(button, arguments or {}))

    def _heard(self, page: str, seen: Any) -> None:
        """A page has got what was sent, or (without `seen`) has gone: if no other one is there it pauses."""
        now = time.time()
        if isinstance(seen, int):
            self._pages[page], self._seen = now, max(self._seen, seen)
            return
        self._pages.pop(page, None)
        if not any(now - at < LATE_SECONDS * 2 for at in self._pages.values()):
            self._pages.clear()
            self._player.ask(Task("pause"))


def _tables(desk: Desk, name: str) -> dict[str, Any]:
    """The tables of a gauge for the wire; what cannot be drawn is said, and everything else is shown."""
    try:
        return {data: packed(table) for data, table in desk.tables(name).items()}
    except Exception as error:  # a study's own gauge may raise anything; the other charts go on
        desk.message = f"The chart {name!r} cannot be drawn: {type(error).__name__}: {error}"
        return {}


def is_served() -> bool:
    """Whether the page is one of Voila, whose visitors must not write files where it runs."""
    return "voila" in os.environ.get("SERVER_SOFTWARE", "")


def front_of(desk: Desk, player: Player) -> Front:
    """A front for a desk; what it shows comes with the player's next turn."""
    front = Front(player, setup=setup_of(desk))
    player.ask(Task("look", compute=lambda desk: None))
    return front


def setup_of(desk: Desk) -> dict[str, Any]:
    """What never changes: title, controls, presets, gauges."""
    return {
        "study": desk.study.name,
        "title": desk.study.title,
        "groups": groups(desk.study),
        "presets": [{"name": preset.name, "doc": preset.doc} for preset in desk.study.presets],
        "seeds": list(SEEDS),
        "gauges": desk.choices(),
        "questions": bool(desk.study.predictions),
        "published": bool(desk.study.published),
        "shipped": (places.datasets() / f"{desk.study.name}.nc").exists() and not desk.is_replay,
        "saves": not is_served(),
        "varied": desk.source.varied if desk.is_replay else None,
    }


def charts_of(desk: Desk) -> dict[str, Any]:
    """The charts that are shown, as Vega-Lite specifications without data, in the order of the gauges."""
    found = {}
    with alt.theme.enable("workbench"):
        for gauge in (gauge for name, gauge in desk.gauges.items() if name in desk.shown):
            variable = desk.source.variables[gauge.variable]
            found[gauge.name] = {
                "title": drawn.axis_title(gauge, variable),
                "kind": gauge.kind,
                "spec": drawn.chart(gauge, variable, logarithmic=desk.logarithmic[gauge.name]).to_dict(),
                "difference": drawn.difference_chart(gauge, variable).to_dict() if gauge.kind == "curve" else None,
            }
    return found


def _vega() -> Vega:
    """The one of this kernel."""
    if not _kept or _kept[-1].comm is None:
        code = bundle()
        _kept[:] = [Vega(code=code, mark=hashlib.sha256(code.encode()).hexdigest()[:16])]
    return _kept[-1]


_kept: list[Vega] = []


@cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one module, out of vl-convert; made once a machine, which takes two or three seconds."""
    vl_convert = extra("vl_convert")
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    path = places.cache() / f"vega-{vl_convert.__version__}-{version}.js"
    if path.is_file() and path.stat().st_size:
        return path.read_text(encoding="utf-8")
    code = vl_convert.javascript_bundle(SNIPPET, vl_version=version)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.writing")
        partial.write_text(code, encoding="utf-8")
        partial.replace(path)
    except OSError:  # where nothing can be written it is made anew each time
        pass
    return code
