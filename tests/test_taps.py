"""Taps: seeing and editing named tensors in a pass."""

import pytest
import torch

from workbench import taps

X = torch.arange(4.0)


def test_without_a_recording_a_tap_is_the_tensor_itself():
    assert taps.tap("0.logits", X) is X
    taps.keep("buffer", X)


def test_a_recording_sees_what_is_tapped_and_kept():
    with taps.recording() as frame:
        assert taps.tap("0.logits", X) is X
        taps.keep("norm.mean", X + 1)
    assert frame.seen == {"0.logits": X} and torch.equal(frame.kept["norm.mean"], X + 1)
    assert taps.tap("0.logits", X) is X


def test_an_edit_changes_every_tap_of_its_word_and_what_is_seen():
    with taps.recording({"logits": lambda x, site: x * site.knobs}, 3.0) as frame, taps.scope("fake"):
        assert torch.equal(taps.tap("0.logits", X), 3 * X)
        assert torch.equal(taps.tap("1.hidden", X), X)
    assert torch.equal(frame.seen["fake/0.logits"], 3 * X)


def test_scopes_prefix_and_nest():
    with taps.recording() as frame:
        with taps.scope("fake"):
            with taps.scope("deep"):
                taps.tap("0.x", X)
            taps.tap("0.x", X)
        taps.tap("0.x", X)
    assert list(frame.seen) == ["fake/deep/0.x", "fake/0.x", "0.x"]


def test_a_name_occurs_once():
    with taps.recording():
        taps.tap("logits", X)
        with pytest.raises(
            ValueError, match="Tap 'logits' occurs twice in one pass; put the loop's index into its name or wrap the pass in scope"
        ):
            taps.tap("logits", X)


def test_the_innermost_recording_hears():
    with taps.recording() as outer:
        with taps.recording() as inner:
            taps.tap("a", X)
        taps.tap("b", X)
    assert (list(outer.seen), list(inner.seen)) == (["b"], ["a"])


def test_a_pass_that_fails_leaves_no_recording_behind():
    with pytest.raises(RuntimeError), taps.recording(), taps.scope("s"):
        raise RuntimeError
    assert taps.tap("a", X) is X and not taps._frames


def test_layers_come_in_the_order_of_their_numbers():
    seen = {f"{prefix}{i}.logits": torch.tensor(i) for prefix in ("", "fake/") for i in (10, 2, 0)} | {"0.hidden": X}
    assert [int(x) for x in taps.by_layer({k: v for k, v in seen.items() if "/" not in k}, "logits")] == [0, 2, 10]
    assert [int(x) for x in taps.by_layer(seen, "logits", "fake/")] == [0, 2, 10]
    assert taps.by_layer(seen, "residual") == []
    assert [taps.last_word(name) for name in ("logits", "0.logits", "fake/0.logits", "fake/logits")] == ["logits"] * 4


def test_taps_are_seen_under_vmap_and_gradients():
    def loss(w):
        with taps.recording({"hidden": lambda x, _: 2 * x}) as frame:
            return taps.tap("0.hidden", w * w).sum(), frame.seen["0.hidden"]

    slopes, hidden = torch.vmap(torch.func.grad(loss, has_aux=True))(torch.ones(3, 2))
    assert torch.equal(slopes, torch.full((3, 2), 4.0)) and torch.equal(hidden, torch.full((3, 2), 2.0))


def test_taps_trace_as_one_graph():
    def tapped(x):
        with taps.recording() as frame, taps.scope("fake"):
            y = taps.tap("0.hidden", x + 1)
        return y, frame.seen

    y, seen = torch.compile(tapped, backend="eager", fullgraph=True)(X)
    assert torch.equal(y, X + 1) and list(seen) == ["fake/0.hidden"]
