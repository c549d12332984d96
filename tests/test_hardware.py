"""Simulated formats against real dtypes, here those of the CPU."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from workbench.numerics import hardware
from workbench.numerics.hardware import DTYPES, PRODUCTS, compare_with_hardware, conversion, product

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", DTYPES)
def test_rounding_is_the_conversion_to_the_dtype(name):
    found = conversion(name, CPU)
    assert found.numbers > 1_000_000 and found.different == 0 == found.largest
    assert found.note == f"too large becomes {'448' if name == 'e4m3' else 'inf'}"


def test_a_wrong_format_is_found(monkeypatch):
    monkeypatch.setitem(DTYPES, "bf16", torch.float16)
    assert conversion("bf16", CPU).different > 0


@pytest.mark.parametrize(("left", "right"), PRODUCTS)
def test_products_of_real_dtypes_differ_by_the_order_of_sums_alone(left, right):
    found = product(left, right, CPU)
    assert found.numbers == 256 * 128 and found.formats == f"{left} x {right}"
    assert found.largest < (0.01 if left == "bf16" else 0.001) and found.different < 0.01 * found.numbers


def test_without_a_gpu_its_arithmetic_is_said_not_to_be_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    table = pd.DataFrame(compare_with_hardware())
    converted, multiplied = table[table["what"] == "conversion"], table[table["what"] == "product"]
    assert converted["formats"].tolist() == list(DTYPES) and (converted["where"] == "cpu").all() and (converted["different"] == 0).all()
    assert (multiplied["note"] == "not run: no GPU").all() and multiplied["numbers"].isna().all() and len(multiplied) == len(PRODUCTS)


def test_a_gpu_without_fp8_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "a GPU")
    monkeypatch.setattr(hardware, "product", lambda left, right, gpu: "run")
    found = [hardware._product_on(torch.device("cuda"), *pair) for pair in PRODUCTS]
    assert found[:2] == ["run", "run"]
    assert {each.note for each in found[2:]} == {"not run: compute capability 8.0, it needs 8.9"} and found[2].where == "a GPU"


def test_the_table_is_printed():
    said = subprocess.run([sys.executable, "-m", "workbench.numerics.hardware"], capture_output=True, text=True, check=True).stdout
    lines = said.splitlines()
    assert lines[0].split() == ["what", "formats", "where", "numbers", "different", "largest", "note"]
    assert len(lines) >= 1 + len(DTYPES) + len(PRODUCTS) and lines[2].split()[:3] == ["conversion", "bf16", "cpu"]
