import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT
from test_views import HOSTILE, SWEEP, VERDICT, crossed, made

import workbench as wb
from workbench.errors import InputError
from workbench.record import save
from workbench.report import report
from workbench.report.html import inert, prose
from workbench.report.tables import grids, provenance, reproduction, settings, summary
from workbench.view import view
from workbench.views.extras import extra

ATTRS = {
    "versions": json.dumps({"torch": "2.13.0", "workbench": "0.1.0"}),
    "design": json.dumps([{"lr": [1e-3, 1e-2, 1e-1], "qk_norm": [False, True], "seed": [0, 1, 2]}]),
    "command": "workbench run made",
    "device": "cpu (x86_64)",
    "source_sha256": "e3b0c442",
    "created": "2026-01-01T00:00:00+00:00",
    "seconds": 1.234567,
    "dtype": "float64",
}
CLAIMS = [
    VERDICT,
    VERDICT | {"status": "fails", "statement": "It recovers."},
    VERDICT | {"mean": None, "low": None, "high": None, "status": "undecided"},
]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, what scripts hold, and the text that is shown."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.shown, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.shown.append("" if tag in ("span", "code") else " ")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data
        elif self.open and self.open[-1] != "style":
            self.shown.append(data)

    @property
    def text(self):
        return " ".join("".join(self.shown).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def record_of(**attrs):
    return made(SWEEP, diverged={4: 20}, **(ATTRS | {"claims": json.dumps(CLAIMS)} | attrs))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = report(record_of(), tmp_path_factory.mktemp("report") / "made.html")
    assert path.stat().st_size < 2_000_000
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    names = ("title", "study", "command", "device", "question", "cites", "created")
    attrs = dict.fromkeys(names, HOSTILE) | {
        "title": "<script>alert(1)</script>",
        "claims": json.dumps([VERDICT | {"statement": HOSTILE, "units": HOSTILE}]),
    }
    attrs |= {"design": json.dumps([{"lr": [HOSTILE]}, {"x);import os#": [1]}]), "versions": json.dumps({HOSTILE: HOSTILE})}
    rows = crossed(seed=[0, 1], lr=[1e-3, 1e-2], text=["plain", HOSTILE, "'\"><svg onload=alert(1)>"])
    folder = tmp_path_factory.mktemp("hostile")
    record = made(rows, loss_name=HOSTILE, diverged={0: 20}, **attrs)
    record.attrs["steps"] = HOSTILE
    save(record, folder / "hostile.nc")
    return Page(report(folder / "hostile.nc", folder / "hostile.html").read_text(encoding="utf-8"))


def test_the_page_says_what_the_record_holds(page):
    for words in (
        "Made",
        "18 runs of 40 steps, 1 diverged, 1 claim holds, 1 claim fails, 1 claim undecided.",
        "✓ holds",
        "✗ fails",
        "? undecided",
        "0.3 nat [0.1, 0.5]",
        "above 0.05 nat",
        "It recovers.",
        "1 of 3, step 20",
        "lr: 0.001, 0.01, 0.1; qk_norm: false, true; seed: 0, 1, 2",
        "torch 2.13.0, workbench 0.1.0",
        "seconds it took 1.235",
        "wb.run( 'made', lr=[0.001, 0.01, 0.1], qk_norm=[False, True], seed=[0, 1, 2], steps=40, dtype='float64', )",
    ):
        assert words in page.text


def test_every_chart_is_there_as_picture_and_as_data(page):
    assert [attrs["data-spec"] for attrs in page.all("div") if "data-spec" in attrs] == ["forest", *(f"chart-{i}" for i in range(5))]
    specs = {attrs["id"]: json.loads(text) for attrs, text in page.scripts if attrs.get("type") == "application/json"}
    assert set(specs) == {"forest", *(f"chart-{i}" for i in range(5))}
    assert {spec["config"]["background"] for spec in specs.values()} == {"transparent"}
    assert len(page.all("img")) == 6


def test_the_page_is_accessible(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len([tag for tag, _ in page.elements if tag == "h1"]) == 1
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert all(len(attrs["alt"]) > 20 for attrs in page.all("img"))
    assert all(attrs["aria-label"] for attrs in page.all("div"))
    assert all(attrs["scope"] == "col" for attrs in page.all("th"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_nothing_is_requested_and_one_script_runs(name, request):
    found = request.getfixturevalue(name)
    addresses = [
        value for _, attrs in found.elements for key, value in attrs.items() if key in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert all(value.startswith("data:image/svg+xml,") for value in addresses)
    assert not [key for _, attrs in found.elements for key in attrs if key.startswith("on") or key == "style"]
    assert {tag for tag, _ in found.elements}.isdisjoint({"link", "iframe", "object", "embed", "base", "a", "svg", "form"})
    running = [text for attrs, text in found.scripts if attrs.get("type") != "application/json"]
    assert len(running) == 1
    policy = next(attrs["content"] for attrs in found.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert "alert(1)" not in running[0]


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_pictures_hold_shapes_and_words_alone(name, request):
    for attrs in request.getfixturevalue(name).all("img"):
        svg = ElementTree.fromstring(unquote(attrs["src"].partition(",")[2]))
        tags = {element.tag.rpartition("}")[2] for element in svg.iter()}
        assert tags <= {"svg", "g", "path", "text", "tspan", "rect", "defs", "clipPath", "linearGradient", "stop", "line"}
        assert not [key for element in svg.iter() for key in element.attrib if key.startswith("on") or key.endswith("href")]


def test_hostile_strings_are_shown_as_they_are(page, hostile):
    assert "<script>alert(1)</script>" in hostile.text
    assert HOSTILE.replace("\u2028", " ") in hostile.text
    assert "import os" not in hostile.text
    assert len(hostile.scripts) == len(page.scripts)
    for attrs, text in hostile.scripts:
        if attrs.get("type") == "application/json":
            assert not re.search("[<>&\u2028]", text)
            json.loads(text)


def test_json_in_a_script_element_is_inert():
    text = inert({"a": "</script><!--\u2028&"})
    assert text == '{"a":"\\u003c/script\\u003e\\u003c!--\\u2028\\u0026"}'
    assert json.loads(text) == {"a": "</script><!--\u2028&"}


def test_prose_marks_code_and_escapes_the_rest():
    assert str(prose("set `lr<1` & `x")) == "set <code>lr&lt;1</code> &amp; `x"


def test_a_report_is_not_overwritten(tmp_path):
    path = tmp_path / "made.html"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"made\.html' exists"):
        report(record_of(), path)
    assert path.read_text() == "mine"
    assert report(record_of(), path, views=[], overwrite=True) == path
    assert "The record has the variables of none of the charts." in Page(path.read_text(encoding="utf-8")).text
    assert [file.name for file in tmp_path.iterdir()] == ["made.html"]


def test_given_views_are_drawn_if_their_variables_are_measured(tmp_path):
    @view("train_loss", "diverged_step")
    def own(record):
        """My chart."""
        import altair

        return altair.Chart(altair.Data(values=[{"a": 1}]), description="one point").mark_point().encode(x="a:Q")

    @view("gradient_norm")
    def absent(record):
        """Never drawn."""

    @view("train_loss")
    def broken(record):
        """Cannot be drawn."""
        raise InputError("There is too little.")

    text = Page(report(record_of(claims="[]"), tmp_path / "a.html", views=[own, absent, broken]).read_text(encoding="utf-8")).text
    assert "My chart." in text
    assert "Never drawn" not in text
    assert "Cannot be drawn. Not drawn: There is too little." in text
    assert "This record holds no verdicts on claims." in text


def test_claims_that_cannot_be_read_are_refused_before_a_file_is_written(tmp_path):
    with pytest.raises(InputError, match="claims"):
        report(record_of(claims="{"), tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_the_package_is_called_like_the_function(tmp_path):
    assert wb.report(record_of(), tmp_path / "a.html", views=[]).exists()
    assert wb.report(record_of(), tmp_path / "b.html", views=[]).exists()


def test_settings_table():
    table = settings(made(SWEEP, diverged={0: 20, 6: 30}, loss=np.ones((18, 41)) * np.arange(1, 19)[:, None]))
    assert table["head"] == ["lr", "qk_norm", "runs", "final training loss [nat]", "diverged"]
    assert table["rows"][0] == ["0.001", "false", "3", "13", "2 of 3, step 20 to 30"]
    assert table["rows"][1] == ["0.001", "true", "3", "8 (2 to 14)", "none of 3"]
    assert (len(table["rows"]), table["left_out"]) == (6, 0)
    assert settings(made(crossed(seed=range(2))))["rows"] == [["2", "2.125 (2.075 to 2.175)", "none of 2"]]
    many = settings(made(crossed(seed=[0], lr=np.linspace(0.1, 1, 130).tolist())))
    assert (len(many["rows"]), many["left_out"]) == (100, 30)


def test_reproduction_is_empty_where_the_record_does_not_say():
    assert reproduction(made(SWEEP)) == ""
    assert grids(made(SWEEP, design='[{"a b": [1]}, {"lr": [1]}, {"lr": 1}, 3]')) == [{"lr": [1]}]
    assert "record_2 = wb.run(" in reproduction(made(SWEEP, design='[{"lr": [1, 2]}, {"lr": [3]}]'))
    assert dict(provenance(made(SWEEP, versions="[")))["versions"] == ""
    assert summary(made(crossed(seed=[0])), []) == "1 run of 40 steps, none diverged."


def test_a_saved_record_is_rendered_without_torch(tmp_path):
    save(record_of(study="gone"), tmp_path / "gone.nc")
    code = f"""
import sys
sys.modules["torch"] = None
import workbench as wb
wb.report({str(tmp_path / "gone.nc")!r}, {str(tmp_path / "gone.html")!r})
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
    assert "18 runs of 40 steps" in (tmp_path / "gone.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["altair", "jinja2", "vl_convert"])
def test_a_missing_package_is_named_with_its_remedy(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        extra(package)
    remedy = "install it with: pip install 'stability-workbench[report]'."
    assert str(caught.value) == f"Charts and reports need the package {package!r}; {remedy}"


def test_a_missing_package_is_noticed_before_any_run():
    code = "import sys; sys.modules['vl_convert'] = None; import workbench.report"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("workbench.errors.InputError: Charts and reports need the package 'vl_convert'; ")


def test_an_unfinished_record_is_said_to_be_unfinished():
    record = made(SWEEP)
    record["events"].dataset["steps_done"].values[:] = 3
    assert "interrupted: only 3 steps were made" in summary(record, [])
