"""Tasks that show all their training examples at every step: modular arithmetic, with and without wrong labels, and sparse parity."""

from functools import partial
from itertools import product
from typing import Literal

import pytest
import torch

from workbench import noise
from workbench.errors import InputError
from workbench.knobs import knob, specs
from workbench.tasks import CorruptedModular, Corruption, Modular, ModularKnobs, Parity, ParityKnobs, Text, choose
from workbench.testing.drawn import DRAWN

KEYS = noise.key_of(torch.arange(2))


class WithWrongLabels(ModularKnobs, Corruption):
    """A table with wrong labels."""


class Either(ModularKnobs, ParityKnobs):
    """Both."""

    data: Literal["modular", "parity"] = knob("modular", doc="Data", group="data")


def pairs_of(batch):
    return {tuple(row) for row in batch["x"].tolist()}


def test_the_published_table_is_split_into_5107_and_7662_pairs_each_once():
    training, held_out = Modular()(ModularKnobs(), KEYS[0]), Modular().evaluation(ModularKnobs())
    assert len(training["x"]) == 5107 and len(held_out["x"]) == 12_769 - 5107
    assert pairs_of(training) | pairs_of(held_out) == set(product(range(113), repeat=2))
    assert pairs_of(training).isdisjoint(pairs_of(held_out)) and len(pairs_of(training)) == 5107
    assert training["x"].dtype == training["y"].dtype == torch.int64
    assert Modular().classes(ModularKnobs()) == 113 == len(Modular().labels(ModularKnobs()))


@pytest.mark.parametrize(("share", "count"), [(0.4, 5107), (0.6, 7661), (0.7, 8938)])
def test_shares_are_cut_off_as_published(share, count):
    assert len(Modular()(ModularKnobs(train_share=share), KEYS[0])["y"]) == count


@pytest.mark.parametrize(
    ("operation", "result"), [("add", lambda a, b: a + b), ("subtract", lambda a, b: a - b), ("product", lambda a, b: a * b)]
)
def test_labels_are_the_results_modulo_the_modulus(operation, result):
    knobs = ModularKnobs(modulus=11, operation=operation)
    for batch in (Modular()(knobs, KEYS[0]), Modular().evaluation(knobs)):
        assert batch["y"].tolist() == [result(a, b) % 11 for a, b in batch["x"].tolist()]


def test_the_split_depends_on_its_own_seed_alone():
    knobs = ModularKnobs(modulus=11)
    assert torch.equal(Modular()(knobs, KEYS[0])["x"], Modular()(knobs, KEYS[1])["x"])
    assert not torch.equal(Modular()(knobs, KEYS[0])["x"], Modular()(knobs.replace(split_seed=43), KEYS[0])["x"])
    assert len({Modular().data_hash(knobs.replace(split_seed=seed)) for seed in (42, 42, 43)}) == 2


def test_the_first_share_of_the_training_labels_is_drawn_anew():
    knobs = WithWrongLabels(corrupted_share=0.3)
    right, wrong = Modular()(knobs, KEYS[0]), CorruptedModular()(knobs, KEYS[0])
    assert torch.equal(right["x"], wrong["x"]) and torch.equal(Modular().evaluation(knobs)["y"], CorruptedModular().evaluation(knobs)["y"])
    assert wrong["corrupted"].nonzero().flatten().tolist() == list(range(1532))  # int(.3 * 5107)
    changed = right["y"] != wrong["y"]
    assert not changed[1532:].any() and 1532 - changed.sum() < 40  # about 1 / 113 of them stay right
    drawn = wrong["y"][:1532].bincount(minlength=113)
    assert drawn.min() > 0 and drawn.max() < 35  # uniform: 13.6 each
    assert torch.equal(CorruptedModular()(knobs, KEYS[1])["y"], wrong["y"])


def test_shares_of_wrong_labels_can_be_lanes():
    shares = torch.tensor([0.0, 0.3, 1.0])
    found = torch.vmap(lambda share: CorruptedModular()(WithWrongLabels(modulus=11).filled({"corrupted_share": share}), KEYS[0]))(shares)
    assert found["corrupted"].sum(1).tolist() == [0, 14, 48]  # of int(.4 * 121)


def test_parities_are_those_of_the_first_bits_of_distinct_vectors():
    knobs = ParityKnobs()
    training, held_out = Parity()(knobs, KEYS[0]), Parity().evaluation(knobs)
    x, y = (torch.cat([training[name], held_out[name]]) for name in "xy")
    assert len(training["x"]) == 1000 and x.shape == (2000, 43) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert torch.equal(x[:, :3].sum(1) % 2, y.float()) and set(x.unique().tolist()) == {0.0, 1.0}
    assert len(x.unique(dim=0)) == 2000
    assert (abs(x.mean(0) - 0.5) < 0.05).all() and abs(y.float().mean() - 0.5) < 0.05
    assert Parity().classes(knobs) == 2 and len(Parity().data_hash(knobs)) == 64


def test_few_bits_still_give_distinct_vectors():
    knobs = ParityKnobs(parity_bits=2, noise_bits=6, samples=128)
    x = torch.cat([Parity()(knobs, KEYS[0])["x"], Parity().evaluation(knobs)["x"]])
    assert len(x.unique(dim=0)) == 128


def test_impossible_sets_are_refused():
    with pytest.raises(InputError, match="129 distinct vectors of 8 bits"):
        Parity()(ParityKnobs(parity_bits=2, noise_bits=6, samples=129), KEYS[0])
    with pytest.raises(InputError, match="leaves 121 of 121 examples to train on"):
        Modular()(ModularKnobs(modulus=11, train_share=1.0), KEYS[0])
    with pytest.raises(InputError, match="leaves 0 of 100 examples to train on"):
        Parity().evaluation(ParityKnobs(samples=100, train_share=0.001))


@pytest.mark.parametrize(
    ("task", "knobs"),
    [
        (Modular(), ModularKnobs(modulus=11)),
        (CorruptedModular(), WithWrongLabels(modulus=11, corrupted_share=0.5)),
        (Parity(), ParityKnobs(samples=100)),
        (choose("data", modular=Modular(), parity=Parity()), Either(modulus=11)),
    ],
)
def test_the_battery_has_nothing_to_say_of_these_tasks(task, knobs):
    assert not [problem for check in DRAWN for problem in check(task, knobs)]


def test_a_choice_is_constant_where_all_its_tasks_are():
    both = choose("data", modular=Modular(), parity=Parity())
    assert both.constant.count("full batch") == 2
    assert not choose("data", modular=Modular(), text=Text()).constant
    assert set(specs(Either)) >= {"modulus", "parity_bits", "split_seed"}
    batches = torch.vmap(partial(both, Either(modulus=11)))(KEYS)
    assert torch.equal(batches["x"][0], batches["x"][1])
