"""Tasks: what a batch is, what is held out, and that draws depend on the key alone."""

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from workbench import inputs, noise
from workbench.errors import InputError
from workbench.knobs import knob, specs
from workbench.tasks import Batch, ImageKnobs, Images, Text, TextKnobs, choose


class Both(TextKnobs, ImageKnobs, defaults={"batch": 8}):
    """A study on both kinds of data."""

    data: Literal["text", "images"] = knob("text", doc="Data", group="data")


TASK = choose("data", text=Text(), images=Images())
KEYS = noise.key_of(torch.arange(4))


def test_one_settings_class_holds_both_and_shares_batch():
    assert set(specs(Both)) == {"batch", "text", "context", "images", "data"}
    assert {spec.group for spec in specs(Both).values()} == {"data"} and specs(Both)["batch"].default == 8
    assert not any(spec.is_lane for spec in specs(Both).values())
    assert issubclass(TextKnobs, Batch) and issubclass(ImageKnobs, Batch)


def test_each_task_declares_what_it_reads():
    assert Text().reads == ("text", "context", "batch") and Images().reads == ("images", "batch")
    assert TASK.reads == ("data", "text", "context", "batch", "images")
    assert Text() == Text() and hash(TASK) == hash(choose("data", text=Text(), images=Images()))


@pytest.mark.parametrize("data", ["text", "images"])
def test_a_batch_depends_on_the_key_alone_and_vmaps(data):
    knobs = Both(data=data, context=32)
    looped = [TASK(knobs, key) for key in KEYS]
    lanes = torch.vmap(partial(TASK, knobs))(KEYS)
    for name, values in lanes.items():
        assert torch.equal(values, torch.stack([batch[name] for batch in looped]))
        assert torch.equal(looped[0][name], TASK(knobs, KEYS[0])[name])
        assert not torch.equal(looped[0][name], looped[1][name])


def test_text_batches_are_windows_of_the_training_speeches():
    knobs = Both(context=48)
    batch, corpus = Text()(knobs, KEYS[0]), inputs.text(knobs.text)
    assert batch["x"].shape == batch["y"].shape == (8, 48) and batch["x"].dtype == batch["y"].dtype == torch.int64
    assert torch.equal(batch["x"][:, 1:], batch["y"][:, :-1])
    whole = corpus.training.tobytes()
    for x, y in zip(batch["x"], batch["y"], strict=True):
        assert torch.cat([x, y[-1:]]).to(torch.uint8).numpy().tobytes() in whole
    assert Text().vocabulary(knobs) == 98 == len(Text().labels(knobs)) and int(batch["x"].max()) < 98


def test_every_place_of_a_text_is_drawn(tmp_path):
    """Ten training characters and a context of three leave the starts 0 to 6, the last window ending with the last character."""
    (tmp_path / "ten.txt").write_text("abcdefghijkl")
    knobs = TextKnobs(text=str(tmp_path / "ten.txt"), context=3, batch=500)
    batch = Text()(knobs, KEYS[0])
    assert batch["x"][:, 0].unique().tolist() == list(range(7)) and int(batch["y"].max()) == 9


@pytest.mark.parametrize("context", [1, 7, 64, 12_579, 30_000])
def test_every_held_out_character_but_the_first_of_a_speech_is_predicted_once(context):
    knobs = Both(context=context)
    held_out = Text().evaluation(knobs)
    passages = inputs.text(knobs.text).held_out
    kept = held_out["weight"] == 1
    assert all(values.shape == (len(kept), context) for values in held_out.values())
    assert torch.equal(held_out["y"][kept], torch.from_numpy(np.concatenate([p[1:] for p in passages])).long())
    assert torch.equal(held_out["x"][kept], torch.from_numpy(np.concatenate([p[:-1] for p in passages])).long())
    assert held_out["weight"].sum() == kept.sum() == 76_856 - 4 and held_out["weight"].dtype == torch.float32
    assert len(kept) == sum(-(-(len(p) - 1) // context) for p in passages)


def test_image_batches_are_standardized_training_images():
    knobs, pictures = Both(data="images"), inputs.images("fashion-mnist")
    batch = Images()(knobs, KEYS[0])
    assert batch["x"].shape == (8, 28, 28) and batch["x"].dtype == torch.float32
    assert batch["y"].shape == (8,) and batch["y"].dtype == torch.int64
    mean, deviation = 73.105, 90.27323  # of the 7,840,000 training pixels
    found = {(p.tobytes(), int(c)) for p, c in zip(pictures.training, pictures.training_labels, strict=True)}
    for x, y in zip(batch["x"], batch["y"], strict=True):
        assert ((x * deviation + mean).round().to(torch.uint8).numpy().tobytes(), int(y)) in found


def test_held_out_images_are_all_evaluated_with_the_training_mean():
    knobs = Both(data="images")
    held_out = TASK.evaluation(knobs)
    assert held_out["x"].shape == (2000, 28, 28) and held_out["y"].bincount().tolist() == [200] * 10
    assert held_out["weight"].sum() == 2000 and torch.isfinite(held_out["x"]).all()
    everything = Images()(knobs.replace(batch=20_000), KEYS[0])["x"]
    assert held_out["x"].min() == everything.min() and abs(float(everything.mean())) < 0.02 and abs(float(everything.std()) - 1) < 0.02
    assert Images().classes(knobs) == 10 and Images().labels(knobs)[1] == "Trouser"


def test_evaluation_sets_cannot_be_emptied_by_their_reader():
    TASK.evaluation(Both()).clear()
    assert set(TASK.evaluation(Both())) == {"x", "y", "weight"}


def test_the_choice_passes_on_and_refuses_other_names():
    assert TASK.labels(Both()) == Text().labels(Both()) and TASK.labels(Both(data="images")) == Images().labels(Both())
    assert TASK.data_hash(Both()) != TASK.data_hash(Both(data="images"))
    assert isinstance(TASK.of(Both(data="images")), Images)
    with pytest.raises(InputError, match="There is no task 'images'"):
        choose("data", text=Text())(Both(data="images"), KEYS[0])


def test_a_text_shorter_than_two_windows_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("abcdefghij" * 2)
    assert Text()(TextKnobs(text=str(path), context=9), KEYS[0])["x"].shape == (16, 9)
    with pytest.raises(
        InputError, match=r"short\.txt' has 20 characters, fewer than two windows of context 10 .* a context of at most 9\."
    ):
        Text()(TextKnobs(text=str(path), context=10), KEYS[0])


def test_the_least_text_for_every_context_trains_and_evaluates(tmp_path):
    for context in range(1, 40):
        path = tmp_path / f"{context}.txt"
        path.write_text(("ab\n\n" * 21)[: 2 * (context + 1)])
        knobs = TextKnobs(text=str(path), context=context)
        assert Text()(knobs, KEYS[0])["x"].shape == (16, context)
        assert Text().evaluation(knobs)["weight"].sum() >= 1


def test_own_images_are_drawn_and_held_out(tmp_path):
    for i in range(20):
        (tmp_path / "ab"[i // 10]).mkdir(exist_ok=True)
        Image.new("L", (28, 28), 12 * i).save(tmp_path / "ab"[i // 10] / f"{i:02d}.png")
    knobs = ImageKnobs(images=str(tmp_path), batch=200)
    batch, held_out = Images()(knobs, KEYS[0]), Images().evaluation(knobs)
    greys = torch.tensor([12.0 * i for i in range(20) if i not in (9, 19)])
    expected = (greys - greys.mean()) / greys.std(correction=0)
    torch.testing.assert_close(batch["x"][:, 0, 0].unique(), expected)
    assert torch.equal(batch["y"], (batch["x"][:, 0, 0] > expected[8] + 1e-3).long())
    torch.testing.assert_close(held_out["x"][:, 0, 0], (torch.tensor([108.0, 228.0]) - greys.mean()) / greys.std(correction=0))
    assert held_out["y"].tolist() == [0, 1] and Images().classes(knobs) == 2 and len(Images().data_hash(knobs)) == 64
