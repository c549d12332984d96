import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from workbench import atlas, catalogue
from workbench.errors import InputError

SLUG = "entropy-collapse"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Ships one record of a study of SLUG with claims of the given (slug, status)."""
    entry = catalogue.Entry("a_study", "A study", (SLUG, "peri-ln"), "", "", "", "")
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))

    def ship(*claims: tuple[str, str]) -> Path:
        record = tmp_path / "a_study.nc"
        record.write_bytes(b"numbers")
        entry = {"file": record.name, "sha256": hashlib.sha256(b"numbers").hexdigest(), "bytes": 7}
        entry["claims"] = [{"slug": slug, "statement": "s", "status": status} for slug, status in claims]
        (tmp_path / "MANIFEST.json").write_text(json.dumps({"records": {"a_study": entry}}))
        return tmp_path

    return ship


def row_of(table, slug):
    return next(row for row in table if row["slug"] == slug)


def test_the_104_systems():
    systems = atlas.systems()
    assert [system.n for system in systems] == list(range(1, 105))
    assert len({system.slug for system in systems}) == 104
    assert Counter(system.family for system in systems)["transformer"] == 13
    assert all(isinstance(text, str) and text for system in systems for name, text in vars(system).items() if name != "n")
    assert next(s for s in systems if s.n == 2).slug == SLUG


def test_rows_without_a_manifest_are_planned(tmp_path):
    table = atlas.table(tmp_path)
    assert len(table) == 104
    assert all(list(row) == ["n", "slug", "title", "family", "study", "claims", "status"] for row in table)
    assert {row["status"] for row in table} == {"planned"}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["holds", "holds"], "holds"), (["holds", "fails"], "fails"), (["fails", "undecided"], "fails"), (["holds", "undecided"], "planned")],
)
def test_status_of_a_slug_is_that_of_its_claims(shipped, statuses, expected):
    table = atlas.table(shipped(*[(SLUG, status) for status in statuses]))
    row = row_of(table, SLUG)
    assert (row["study"], row["status"], [claim["status"] for claim in row["claims"]]) == ("a_study", expected, statuses)


def test_claims_count_only_for_their_own_slug(shipped):
    table = atlas.table(shipped((SLUG, "holds"), ("peri-ln", "fails")))
    assert [row_of(table, slug)["status"] for slug in (SLUG, "peri-ln", "spam")] == ["holds", "fails", "planned"]
    assert row_of(table, "spam")["study"] is None


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), Path.unlink])
def test_a_record_that_is_not_the_listed_one_is_refused(shipped, damage):
    folder = shipped((SLUG, "holds"))
    damage(folder / "a_study.nc")
    with pytest.raises(InputError, match="does not match its manifest; run `workbench rebuild a_study`"):
        atlas.table(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"records": []}', '{"records": {"a_study": {}}}', '{"records": {"a_study": 3}}'])
def test_a_broken_manifest_is_refused(shipped, text):
    folder = shipped()
    (folder / "MANIFEST.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read as a manifest"):
        atlas.table(folder)


def test_each_studied_slug_is_a_system():
    assert {slug for entry in catalogue.entries() for slug in entry.slugs} <= {system.slug for system in atlas.systems()}


def test_the_claims_of_several_studies_are_counted_together(shipped, monkeypatch):
    folder = shipped((SLUG, "holds"))
    (folder / "other.nc").write_bytes(b"numbers")
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    claim = {"slug": SLUG, "statement": "t", "status": "fails"}
    manifest["records"]["other"] = {**manifest["records"]["a_study"], "file": "other.nc", "claims": [claim]}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    both = (catalogue.Entry("a_study", "", (SLUG,), "", "", "", ""), catalogue.Entry("other", "", (SLUG,), "", "", "", ""))
    monkeypatch.setattr(catalogue, "entries", lambda: both)
    row = row_of(atlas.table(folder), SLUG)
    assert (row["study"], row["status"], len(row["claims"])) == ("a_study, other", "fails", 2)


def test_shipped_records_match_the_shipped_manifest():
    assert len(atlas.table()) == 104


def test_the_atlas_needs_neither_torch_nor_xarray():
    code = "import sys; sys.modules |= dict.fromkeys(['torch', 'xarray', 'altair']); import workbench.atlas as a; print(len(a.table()))"
    root = Path(atlas.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "104"
