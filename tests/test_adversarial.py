"""Two players against a loop in plain PyTorch, and their field against the eigenvalues that are known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workbench import noise
from workbench.errors import InputError
from workbench.knobs import prefixed
from workbench.learners import Adversarial, Game
from workbench.learners.adversarial import LOSSES, of_players
from workbench.models import MLP, Initialization, Perceptron
from workbench.models.initialize import constant
from workbench.optimizers import Optimizers
from workbench.probes.game import field_eigenvalues
from workbench.schedules import Schedule
from workbench.study import Moment, Now, Terms
from workbench.tasks import Batch

KEY = noise.key_of(0)
LATENT = 3


class Player(
    Perceptron,
    Schedule,
    Optimizers,
    defaults={"width": 5, "depth": 1, "activation": "tanh", "lr": 0.05, "optimizer": "sgd", "momentum": 0.0},
):
    """A small perceptron and its optimizer."""


class Settings(Game, prefixed("generator", Player), prefixed("critic", Player), Initialization, Batch, defaults={"batch": 6}):
    """Both."""


LEARNER = Adversarial(
    lambda knobs: MLP(knobs, LATENT, 2), lambda knobs: MLP(knobs, 2, 1), lambda key, knobs, count: noise.normal(key, "z", (count, LATENT))
)


def begun(knobs):
    shared = LEARNER.prepare(knobs, KEY)
    return shared, LEARNER.init(KEY, knobs, shared)


def batch_of(knobs):
    return {"x": noise.normal(noise.key_of(9), "x", (knobs.critic_steps * knobs.batch, 2)) + 1}


def now(step=0):
    return Now(torch.tensor(float(step)), noise.fold(KEY, step), "train")


def stepped(knobs):
    shared, state = begun(knobs)
    new, moment = LEARNER.step(state, batch_of(knobs), knobs, shared, now())
    return shared, state, new, moment


def net(values, activation=torch.tanh):
    """A function of x by the weights of an MLP with one hidden layer."""
    return lambda x: F.linear(
        activation(F.linear(x, values["layers.0.weight"], values["layers.0.bias"])), values["readout.weight"], values["readout.bias"]
    )


def leaves(values):
    return {name: value.clone().requires_grad_() for name, value in values.items()}


def binary(scores, label):
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


def by_hand(knobs, critic_loss, generator_loss):
    """One step of descent of both players in plain PyTorch; their weights after it."""
    _, state = begun(knobs)
    players = {player: leaves(values) for player, values in of_players(state["params"]).items()}
    begun_critic = {name: x.detach().clone() for name, x in players["critic"].items()}
    parts = batch_of(knobs)["x"].unflatten(0, (knobs.critic_steps, -1))
    for i, real in enumerate(parts):
        z = noise.normal(noise.fold(now().key, f"critic update {i}"), "z", (len(real), LATENT))
        made = net(players["generator"])(z).detach()
        loss = critic_loss(net(players["critic"]), real, made)
        slopes = torch.autograd.grad(loss, [*players["critic"].values()])
        with torch.no_grad():
            for p, g in zip(players["critic"].values(), slopes, strict=True):
                p -= knobs.critic_lr * g
    judge = net(players["critic"] if knobs.updates == "alternating" else begun_critic)
    slopes = torch.autograd.grad(generator_loss(judge(net(players["generator"])(z))), [*players["generator"].values()])
    moved = {name: p - knobs.generator_lr * g for (name, p), g in zip(players["generator"].items(), slopes, strict=True)}
    return {f"generator.{name}": p for name, p in moved.items()} | {f"critic.{name}": p for name, p in players["critic"].items()}


def saturating(critic, real, made):
    return binary(critic(real), 1.0) + binary(critic(made), 0.0)


def squared(critic, real, made):
    return F.mse_loss(critic(real), torch.ones(len(real), 1)) / 2 + F.mse_loss(critic(made), torch.zeros(len(made), 1)) / 2


def earth_mover(critic, real, made):
    return critic(made).mean() - critic(real).mean()


def hinge(critic, real, made):
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(made)).mean()


def with_r1(critic, real, made):
    real = real.clone().requires_grad_()
    slopes = torch.autograd.grad(critic(real).sum(), real, create_graph=True)[0]
    return saturating(critic, real.detach(), made) + 2.0 / 2 * (slopes**2).sum(1).mean()


GAMES = {
    "non_saturating": (dict(), saturating, lambda s: binary(s, 1.0)),
    "minimax": (dict(adversarial_loss="minimax"), saturating, lambda s: -binary(s, 0.0)),
    "least_squares": (dict(adversarial_loss="least_squares"), squared, lambda s: ((s - 1) ** 2).mean() / 2),
    "wasserstein": (dict(adversarial_loss="wasserstein"), earth_mover, lambda s: -s.mean()),
    "hinge": (dict(adversarial_loss="hinge"), hinge, lambda s: -s.mean()),
    "simultaneous": (dict(updates="simultaneous"), saturating, lambda s: binary(s, 1.0)),
    "critic steps": (dict(critic_steps=3, critic_lr=0.2), saturating, lambda s: binary(s, 1.0)),
    "r1": (dict(penalty="r1", penalty_weight=2.0), with_r1, lambda s: binary(s, 1.0)),
}


@pytest.mark.parametrize(("given", "critic_loss", "generator_loss"), GAMES.values(), ids=GAMES)
def test_a_step_is_that_of_a_plain_loop(given, critic_loss, generator_loss):
    knobs = Settings(**given)
    *_, new, moment = stepped(knobs)
    expected = by_hand(knobs, critic_loss, generator_loss)
    assert new["params"].keys() == expected.keys() == moment.grads.keys()
    for name, value in expected.items():
        torch.testing.assert_close(new["params"][name], value.detach(), atol=1e-6, rtol=1e-5)


def test_the_gradient_penalty_is_wgan_gp_between_real_and_generated_samples():
    knobs = Settings(adversarial_loss="wasserstein", penalty="gradient", penalty_weight=10.0)
    share = noise.uniform(noise.fold(now().key, "critic update 0"), "between", (knobs.batch,))[:, None]

    def penalized(critic, real, made):
        between = (share * real + (1 - share) * made).requires_grad_()
        slopes = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        return earth_mover(critic, real, made) + 10 * ((slopes.norm(dim=1) - 1) ** 2).mean()

    *_, new, _ = stepped(knobs)
    for name, value in by_hand(knobs, penalized, lambda s: -s.mean()).items():
        torch.testing.assert_close(new["params"][name], value.detach(), atol=1e-6, rtol=1e-5)


def test_each_player_has_an_optimizer_and_a_rate_of_its_own():
    knobs = Settings(generator_optimizer="adamw", generator_lr=0.01, critic_lr=0.5)
    _, state, new, moment = stepped(knobs)
    assert set(new["optimizer"]["generator"]) == {"count", "m", "v"} and set(new["optimizer"]["critic"]) == {"momentum"}
    torch.testing.assert_close(moment.rates, torch.tensor([0.01, 0.5]))
    for name, g in moment.grads.items():
        step = new["params"][name] - state["params"][name]
        expected = -0.01 * g / (g.abs() + 1e-8) if name.startswith("generator.") else -0.5 * g
        torch.testing.assert_close(step, expected, atol=1e-6, rtol=1e-4)


def test_the_average_runs_behind_the_generator():
    knobs = Settings(generator_average=0.9)
    _, state, new, _ = stepped(knobs)
    for name, own in of_players(new["params"])["generator"].items():
        torch.testing.assert_close(new["average"][name], 0.9 * state["average"][name] + 0.1 * own)
    plain = stepped(Settings())[2]
    assert all(torch.equal(x, plain["params"][f"generator.{name}"]) for name, x in plain["average"].items())


def test_instance_noise_is_drawn_anew_for_real_and_generated_samples():
    quiet, noisy = (stepped(Settings(instance_noise=size))[3].scores for size in (0.0, 1.0))
    moved = {name: noisy[name] - quiet[name] for name in quiet}
    assert all(x.abs().min() > 0 for x in moved.values()) and not torch.allclose(moved["real"], moved["generated"])


def test_what_the_switches_change_goes_on_from_where_it_was():
    old, new = Settings(), Settings(generator_optimizer="adamw", penalty="r1", critic_steps=2)
    shared, state = begun(old)
    state, _ = LEARNER.step(state, batch_of(old), old, shared, now())
    again = LEARNER.prepare(new, KEY)
    carried = LEARNER.adapt(state, KEY, Terms(old, shared), Terms(new, again))
    assert all(torch.equal(carried["params"][name], x) for name, x in state["params"].items())
    assert carried["optimizer"]["critic"].keys() == state["optimizer"]["critic"].keys() and "m" in carried["optimizer"]["generator"]
    LEARNER.step(carried, batch_of(new), new, again, now(1))


def test_generator_losses_push_scores_of_generated_samples_up_and_the_critic_pulls_them_down():
    scores = torch.linspace(-0.9, 0.9, 7, requires_grad=True)
    for name, kind in LOSSES.items():
        (up,) = torch.autograd.grad(kind.generator(scores).sum(), scores)
        (apart,) = torch.autograd.grad((kind.generated(scores) + kind.real(-scores)).sum(), scores)
        assert (up < 0).all() and (apart >= 0 if name != "least_squares" else apart > -2).all(), name


class Coefficient(nn.Module):
    """Of one number: a position as generator, a slope as critic."""

    def __init__(self, made):
        super().__init__()
        self.value, self.made = nn.Parameter(torch.empty(1)), made

    def rules(self):
        return {"value": constant("matrix", 0.0)}

    def forward(self, x):
        return self.made(self.value, x)


@pytest.mark.parametrize(
    ("given", "eigenvalues"),
    [
        (dict(adversarial_loss="wasserstein"), [-1j, 1j]),
        (dict(), [-0.5j, 0.5j]),
        (dict(penalty="r1", penalty_weight=0.6), [-0.3 - 0.4j, -0.3 + 0.4j]),
        (dict(penalty="r1", penalty_weight=1.0), [-0.5, -0.5]),
        (dict(penalty="r1", penalty_weight=10.0), [-5 - 24.75**0.5, -5 + 24.75**0.5]),
    ],
)
def test_the_field_of_the_dirac_gan_has_the_eigenvalues_of_arxiv_1801_04406(given, eigenvalues):
    dirac = Adversarial(
        lambda knobs: Coefficient(lambda value, z: value.expand(len(z), 1)),
        lambda knobs: Coefficient(lambda value, x: value * x),
        lambda key, knobs, count: torch.zeros(count, 0),
    )
    knobs = Settings(**given)
    shared = dirac.prepare(knobs, KEY)
    _, moment = dirac.step(dirac.init(KEY, knobs, shared), {"x": torch.zeros(6, 1)}, knobs, shared, now())
    found = sorted(field_eigenvalues(moment).tolist(), key=lambda z: (round(z.real, 3), z.imag))
    assert found == pytest.approx(eigenvalues, abs=2e-3)


def test_a_player_begins_as_its_own_knobs_say():
    plain, scaled = (begun(Settings(critic_init_scale=size))[1]["params"] for size in (1.0, 10.0))
    torch.testing.assert_close(scaled["critic.layers.0.weight"], 10 * plain["critic.layers.0.weight"])
    assert torch.equal(scaled["generator.layers.0.weight"], plain["generator.layers.0.weight"])


def test_a_batch_that_the_updates_of_the_critic_cannot_share_is_refused():
    knobs = Settings(critic_steps=4)
    shared, state = begun(knobs)
    with pytest.raises(InputError, match="has 6 samples, which 4 updates of the critic cannot share"):
        LEARNER.step(state, {"x": torch.zeros(6, 2)}, knobs, shared, now())


def test_players_without_knobs_of_their_own_are_refused():
    class Alone(Game, prefixed("generator", Player), Batch):
        """No critic."""

    with pytest.raises(InputError, match=r"have no learning rate of the critic; mix in prefixed\('critic', Schedule\)"):
        LEARNER.prepare(Alone(), KEY)


def test_eigenvalues_are_not_numbers_where_the_field_is_not_finite_and_refused_for_large_nets():
    moment = Moment(params={"x": torch.ones(2)}, field=lambda at: {"x": at["x"] * torch.inf})
    assert field_eigenvalues(moment).real.isnan().all() and field_eigenvalues(moment).imag.isnan().all()
    with pytest.raises(InputError, match="The players have 600 parameters"):
        field_eigenvalues(Moment(params={"x": torch.ones(600)}, field=dict))
