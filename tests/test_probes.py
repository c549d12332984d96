import math

import pytest
import torch
from torch.utils._pytree import tree_map

from workbench import noise, probes
from workbench.dims import DIMS
from workbench.errors import InputError
from workbench.learners import Loss, Supervised
from workbench.learners.losses import cross_entropy
from workbench.models import MLP, Convnet, Convolutional, Decoder, Patches, Perceptron, Transformer, VisionTransformer
from workbench.numerics import OutputSoftmax, Rounding
from workbench.optimizers import Optimizers
from workbench.probe import Probe
from workbench.probes.ranges import PLACES
from workbench.schedules import Schedule
from workbench.study import Moment, Now
from workbench.tasks import Batch

VOCABULARY, CONTEXT, RUNS = 5, 6, 3
PROBES = {name: getattr(probes, name) for name in probes.__all__ if isinstance(getattr(probes, name), Probe)}


class Training(Batch, Schedule, Optimizers, OutputSoftmax, Rounding, Loss):
    pass


class Settings(Transformer, Patches, Training, defaults={"width": 8, "heads": 2}):
    pass


class OfMLP(Perceptron, Training, defaults={"width": 8}):
    pass


class OfConvnet(Convolutional, Training, defaults={"width": 4}):
    pass


def tokens(name, rows):
    x = noise.randint(noise.key_of(0), name, VOCABULARY, (rows, CONTEXT))
    weight = torch.ones(rows, CONTEXT, dtype=torch.float64)
    weight[-1, 2:] = 0
    return dict(x=x, y=x.flip(1), weight=weight)


def pictures(name, rows):
    return dict(x=noise.normal(noise.key_of(0), name, (rows, 28, 28), torch.float64), y=noise.randint(noise.key_of(0), name, 4, (rows,)))


def lane(tree, run):
    return tree_map(lambda x: x[run], tree)


class Setup:
    """A learner, its knobs, what it prepared, and the states of a few runs after some steps."""

    def __init__(self, knobs, model, examples, dtype=torch.float64, steps=2):
        self.knobs, self.examples, self.dtype = knobs, examples, dtype
        self.learner = Supervised(model, evaluation=lambda k, device: examples("held out", 7))
        self.shared = tree_map(self._cast, self.learner.prepare(knobs, noise.key_of(0)))
        self.batch = tree_map(self._cast, examples("batch", 4))
        self.keys = noise.key_of(torch.arange(RUNS))
        self.lanes = {name: getattr(knobs, name) * torch.tensor([1.0, 1.5, 0.7], dtype=dtype) for name in ("lr", "epsilon")}
        self.states = tree_map(self._cast, torch.vmap(lambda key: self.learner.init(key, knobs, self.shared))(self.keys))
        for _ in range(steps):
            self.states = torch.vmap(lambda *run: self.step(*run)[0])(self.states, self.lanes, self.keys)

    def _cast(self, x):
        return x.to(self.dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    def step(self, state, lanes, key):
        now = Now(torch.zeros((), dtype=self.dtype), key, "train")
        return self.learner.step(state, self.batch, self.knobs.filled(lanes), self.shared, now)

    def measure(self, chosen, state, lanes, key):
        """The values of probes on one run."""
        moment = self.step(state, lanes, key)[1]
        of_state = (state, self.knobs.filled(lanes), self.shared, key)
        return {p.name: p(moment) if p.on == "moment" else p(*of_state) for p in chosen}

    def mapped(self, chosen, states=None):
        """The values of all runs at once, as the engine takes them: outside of autograd."""
        with torch.no_grad():
            runs = (self.states if states is None else states, self.lanes, self.keys)
            return torch.vmap(lambda *run: self.measure(chosen, *run), randomness="error")(*runs)

    def looped(self, chosen):
        """The values of all runs, one after another."""
        with torch.no_grad():
            runs = [lane((self.states, self.lanes, self.keys), i) for i in range(RUNS)]
            values = [self.measure(chosen, *run) for run in runs]
        return {name: torch.stack([each[name] for each in values]) for name in values[0]}

    def moment(self, run=0):
        return self.step(*lane((self.states, self.lanes, self.keys), run))[1]

    def labels(self):
        seen = range(CONTEXT if self.examples is tokens else (28 // getattr(self.knobs, "patch", 28)) ** 2)
        own = dict(layer=range(self.knobs.depth), head=range(getattr(self.knobs, "heads", 0)), y=seen, x=seen, place=PLACES)
        return own | self.learner.coords(self.knobs, self.shared)


def decoder(dtype=torch.float64, **values):
    return Setup(Settings(**values), lambda k: Decoder(k, VOCABULARY, CONTEXT), tokens, dtype)


def vision(**values):
    return Setup(Settings(patch=14, **values), lambda k: VisionTransformer(k, 4), pictures)


def mlp(**values):
    return Setup(OfMLP(**values), lambda k: MLP(k, 28 * 28, 4), pictures)


def convnet(**values):
    return Setup(OfConvnet(**values), lambda k: Convnet(k, 4), pictures)


NEED_ATTENTION = {"attention_entropy", "attention_entropy_bound", "attention_map", "spectral_entropy_bound", "attention_logit_max"}
NEED_ATTENTION |= {"residual_rms"}
NEED_BLOCKS = {"mlp_gradient_rms"}
OF_ANY_MODEL = [p for name, p in PROBES.items() if name not in NEED_ATTENTION | NEED_BLOCKS]
OF_CONVNETS = [p for p in OF_ANY_MODEL if p.name != "spectral_norm"]
SETUPS = {
    "decoder": (decoder, {}, PROBES.values()),
    "decoder with sigmaReparam": (decoder, dict(sigma_reparam=True), PROBES.values()),
    "decoder with bias, QK-norm, SGD": (decoder, dict(bias=True, qk_norm=True, optimizer="sgd"), PROBES.values()),
    "vision": (vision, {}, PROBES.values()),
    "mlp": (mlp, {}, OF_ANY_MODEL),
    "convnet": (convnet, {}, OF_CONVNETS),
}


@pytest.mark.parametrize("name", SETUPS)
def test_every_probe_has_its_shape_and_gives_in_lanes_what_it_gives_in_a_loop(name):
    make, values, chosen = SETUPS[name]
    setup = make(**values)
    lanes, loop, labels = setup.mapped(chosen), setup.looped(chosen), setup.labels()
    for p in chosen:
        assert lanes[p.name].shape == (RUNS, *(len(labels[dim]) for dim in p.dims)), p.name
        torch.testing.assert_close(lanes[p.name], loop[p.name], rtol=1e-7, atol=1e-10, equal_nan=True, msg=p.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_broken_lane_leaves_its_neighbours_as_they_were(value, dtype):
    setup = decoder(dtype=dtype, sigma_reparam=True)
    broken = tree_map(torch.clone, setup.states)
    for p in broken["params"].values():
        p[1] = value
    before, after = setup.mapped(PROBES.values()), setup.mapped(PROBES.values(), broken)
    for name in PROBES:
        for run in (0, 2):
            assert torch.equal(before[name][run], after[name][run]), name
            assert torch.isfinite(after[name][run]).all() or name == "critical_sharpness", name
    if not math.isfinite(value):
        for name in ("spectral_norm", "spectral_entropy_bound", "hessian_top_eigenvalue", "critical_sharpness", "attention_entropy_bound"):
            assert torch.isnan(after[name][1]).all(), name


COSTS = {
    "hessian_top_eigenvalue": "curvature",
    "critical_sharpness": "curvature",
    "validation_loss": "forward",
    "validation_accuracy": "forward",
    "underflow_share": "backward",
    "overflow_share": "backward",
}


def test_declarations():
    assert {p.name for p in PROBES.values()} == set(PROBES)
    assert len(set(probes.DEFAULTS)) == len(probes.DEFAULTS)
    for p in PROBES.values():
        assert set(p.dims) <= set(DIMS)
        assert p.vectorised
        assert p.cost == COSTS.get(p.name, "free")
        assert len(p.doc) <= 80
    assert {p.cost for p in probes.DEFAULTS} == {"free"}
    assert {p.on for p in probes.DEFAULTS} == {"moment"}


@pytest.mark.parametrize("name", sorted(NEED_ATTENTION))
def test_a_probe_of_attention_on_another_model_says_what_it_misses(name):
    with pytest.raises(InputError, match="No layer of this model taps"):
        PROBES[name](mlp().moment())


def test_a_probe_of_blocks_on_a_model_without_them_says_what_it_misses():
    with pytest.raises(InputError, match=r"No parameter of this model is called blocks\.0\.mlp\.inner\.weight"):
        probes.mlp_gradient_rms(mlp().moment())


def test_spectral_norms_of_a_model_without_matrices_say_so():
    with pytest.raises(InputError, match="no matrix"):
        probes.spectral_norm(convnet().moment())


def test_a_probe_by_layer_on_a_model_without_layers_says_so():
    with pytest.raises(InputError, match=r"blocks\.i or layers\.i"):
        probes.weight_norm(Moment(params={"w": torch.ones(2)}))


@pytest.mark.parametrize("make", [decoder, vision, convnet, mlp])
def test_validation_takes_all_held_out_data_at_once_or_in_slices(make):
    chosen = [probes.validation_loss, probes.validation_accuracy]
    whole, sliced = make().mapped(chosen), make(batch=1).mapped(chosen)
    for p in chosen:
        torch.testing.assert_close(whole[p.name], sliced[p.name], rtol=1e-12, atol=0)


def test_validation_weighs_predictions_and_counts_right_ones():
    setup = decoder()
    held_out, m = setup.shared["evaluation"], setup.moment()
    state = lane(setup.states, 0)
    readout = torch.func.functional_call(setup.shared["model"], state["params"], (held_out["x"],))
    kept = held_out["weight"].bool()
    losses = torch.nn.functional.cross_entropy(readout[kept], held_out["y"][kept])
    torch.testing.assert_close(probes.validation_loss(state, setup.knobs, setup.shared, None), losses)
    right = (readout[kept].argmax(-1) == held_out["y"][kept]).double().mean()
    torch.testing.assert_close(probes.validation_accuracy(state, setup.knobs, setup.shared, None), right)
    torch.testing.assert_close(probes.train_loss(m), cross_entropy(m.taps["readout"], m.batch))
    hits = (m.taps["readout"].argmax(-1) == m.batch["y"])[m.batch["weight"].bool()].double().mean()
    torch.testing.assert_close(probes.train_accuracy(m), hits)


def test_validation_on_the_training_batch_is_the_training_loss():
    for values in (dict(), dict(round_weights="bits", round_activations="bits", mantissa_bits=2), dict(sigma_reparam=True)):
        setup = decoder(**values)
        setup.shared["evaluation"] = setup.batch
        found = setup.mapped([probes.train_loss, probes.validation_loss, probes.train_accuracy, probes.validation_accuracy])
        torch.testing.assert_close(found["validation_loss"], found["train_loss"])
        torch.testing.assert_close(found["validation_accuracy"], found["train_accuracy"])


def test_validation_uses_running_statistics():
    setup = convnet()
    state = tree_map(torch.clone, lane(setup.states, 0))
    before = probes.validation_loss(state, setup.knobs, setup.shared, None)
    state["buffers"]["norms.0.running_var"] *= 4
    assert probes.validation_loss(state, setup.knobs, setup.shared, None) != before


def test_a_map_of_attention_is_the_first_sequence_s_probabilities_as_bytes():
    setup = decoder()
    m = setup.moment()
    pictures = probes.attention_map(m)
    assert pictures.dtype == torch.uint8
    for layer, head in ((0, 0), (1, 1)):
        first = m.taps[f"{layer}.attention"][0, head]
        assert (pictures[layer, head] / 255 - first).abs().max() <= 0.5 / 255 + 1e-9
        assert (pictures[layer, head].triu(1) == 0).all()  # no query sees a later key
        assert pictures[layer, head, 0, 0] == 255


def test_a_map_of_attention_that_is_no_number_or_above_one_stays_within_bytes():
    p_BHLL = torch.tensor([[[[math.nan, 1.125], [0.5, 1e-9]]]])
    found = probes.attention_map(Moment(taps={"0.attention": p_BHLL, "mask": None}))
    assert found.tolist() == [[[[0, 255], [128, 0]]]]


def test_validation_without_held_out_data_says_so():
    setup = decoder()
    setup.shared["evaluation"] = None
    with pytest.raises(InputError, match="held-out"):
        setup.mapped([probes.validation_loss])


def test_another_loss_and_edits_of_the_learner_are_used_held_out():
    setup = decoder()
    state = lane(setup.states, 0)
    setup.shared["loss"] = lambda readout, batch, knobs: readout.sum() * 0 + 7
    assert probes.validation_loss(state, setup.knobs, setup.shared, None) == 7
    right = torch.nn.functional.one_hot(setup.shared["evaluation"]["y"], VOCABULARY)
    setup.shared["edits"] = lambda knobs: {"readout": lambda x, knobs: right.to(x)}
    assert probes.validation_accuracy(state, setup.knobs, setup.shared, setup.keys[0]) == 1
