"""Small studies for tests. UNLIKE: two players, an event queue, a policy, a task sequence. SLICES: models trained by `Supervised`.

Question.   Does the engine hold learners that have little in common?
Phenomenon. Each has a quantity that is known exactly.
Try.        Change a rate.
Cites.      Mescheder et al. 2018, arXiv:1801.04406 (the Dirac GAN).
"""

import heapq

import torch
from torch.func import grad, grad_and_value

from workbench import noise
from workbench.design import grid
from workbench.engine import Kept, plan, stream
from workbench.knobs import Knobs, at_least, knob, prefixed
from workbench.learners import Loss, Supervised
from workbench.models import MLP, Convnet, Convolutional, Decoder, Perceptron, Transformer
from workbench.numerics import Rounding
from workbench.optimizers import Optimizers
from workbench.probe import probe
from workbench.probes import attention_entropy, train_loss, weight_norm_total
from workbench.schedules import Schedule
from workbench.study import Budget, Moment, Phase, Study


class Rate(Knobs):
    lr: float = knob(0.1, 1e-3, 1.0, log=True, doc="learning rate")


def nothing(knobs, key):
    return {}


nothing.constant = "there is no data"


def budgets(steps, **axes):
    return {name: Budget(grid(seed=(0, 1), **axes), steps) for name in ("smoke", "demo", "full")}


@probe()
def loss(m):
    """Loss"""
    return m.loss


def final_states(study, rows, steps, **settings):
    """The state of each run after the last update."""
    stops = stream(plan(study, rows, steps, **settings), until=steps)
    return {run: state for item in stops if isinstance(item, Kept) for run, state in zip(item.runs, item.states, strict=True)}


# 0. Gradient descent on w^2 / 2 from w = 1: w = (1 - lr)^s after s updates.


class Descent:
    def prepare(self, knobs, key):
        return None

    def init(self, key, knobs, shared):
        return dict(params=dict(w=torch.ones(())))

    def step(self, state, batch, knobs, shared, now):
        w = state["params"]["w"]
        return dict(params=dict(w=w - knobs.lr * w)), Moment(loss=w * w / 2, params=state["params"], now=now)


@probe()
def weight(m):
    """Weight"""
    return m.params["w"]


parabola = Study(__name__, title="A parabola", knobs=Rate, task=nothing, learner=Descent(), probes=(loss, weight), budgets=budgets(20))

# 1. Two players of the Dirac GAN at discriminator output x * critic: the generator pulls down what the critic pulls up.


class Duel:
    def prepare(self, knobs, key):
        return None

    def init(self, key, knobs, shared):
        return dict(params=dict(generator=torch.ones(()), critic=torch.zeros(())))

    def step(self, state, batch, knobs, shared, now):
        slopes, value = grad_and_value(lambda p: p["generator"] * p["critic"])(state["params"])
        rates = dict(generator=-knobs.view("generator").lr, critic=knobs.view("critic").lr)
        moved = {name: p + rates[name] * slopes[name] for name, p in state["params"].items()}
        return dict(params=moved), Moment(loss=value, params=state["params"])


@probe("player")
def position(m):
    """Parameter of each player"""
    return torch.stack([m.params["generator"], m.params["critic"]])


class DuelKnobs(prefixed("generator", Rate), prefixed("critic", Rate)):
    pass


duel = Study(
    __name__,
    title="Two players",
    knobs=DuelKnobs,
    task=nothing,
    learner=Duel(),
    probes=(loss, position),
    coords=lambda knobs: dict(player=["generator", "critic"]),
    budgets=budgets(20),
)


# 2. An asynchronous parameter server, event by event: w^2 / 2 is minimized with gradients taken when each worker last read w.


class Server:
    lanes = False
    reason = "the events wait in a heap of Python tuples"

    def prepare(self, knobs, key):
        return None

    def init(self, key, knobs, shared):
        return dict(clock=0.0, weight=1.0, log="", queue=[(float(i), i, 1.0) for i in range(knobs.workers)])

    def step(self, state, batch, knobs, shared, now):
        queue = list(state["queue"])
        clock, worker, read = heapq.heappop(queue)
        weight = state["weight"] - knobs.lr * read
        heapq.heappush(queue, (clock + knobs.workers + knobs.jitter * float(batch["delay"]), worker, weight))
        new = dict(clock=clock, weight=weight, log=(state["log"] + str(worker))[-8:], queue=queue)
        return new, Moment(
            loss=state["weight"] ** 2 / 2, clock=clock, lag=state["weight"] - read, kinds=(type(knobs.lr), type(knobs.workers))
        )


@probe(units="second")
def clock(m):
    """Time of the event"""
    return m.clock


class ServerKnobs(Rate):
    workers: int = knob(3, 1, 8, valid=at_least(1), doc="workers")
    jitter: float = knob(0.0, 0.0, 1.0, doc="spread of a worker's delay", units="second")


def delays(knobs, key):
    return dict(delay=noise.uniform(key, "delay"))


server = Study(
    __name__,
    title="An event queue",
    knobs=ServerKnobs,
    task=delays,
    learner=Server(),
    probes=(loss, clock),
    budgets=budgets(20, jitter=0.5),
)


# 3. REINFORCE on a chain: from each place one may step on or fall back to the start; the last place pays 1 and starts again.

PLACES = 4


def reset():
    return torch.zeros((), dtype=torch.int64)


def move(place, forward):
    arrived = forward & (place == PLACES - 1)
    return torch.where(forward & ~arrived, place + 1, reset()), arrived


class Policy:
    def prepare(self, knobs, key):
        return None

    def init(self, key, knobs, shared):
        return dict(params=torch.zeros(PLACES), place=reset(), trace=torch.zeros(PLACES))

    def step(self, state, batch, knobs, shared, now):
        scores, place = state["params"], state["place"]
        forward = noise.uniform(now.key, "action", dtype=scores.dtype) < torch.sigmoid((scores * _at(place)).sum())
        log_probability = lambda s: torch.nn.functional.logsigmoid(torch.where(forward, 1, -1) * (s * _at(place)).sum())  # noqa: E731
        trace = state["trace"] + grad(log_probability)(scores)
        following, arrived = move(place, forward)
        ended = arrived | ~forward
        new = dict(params=scores + knobs.lr * arrived * trace, place=following, trace=torch.where(ended, 0.0, trace))
        return new, Moment(loss=-arrived.to(scores.dtype), reward=arrived, place=place)


def _at(place):
    return (torch.arange(PLACES) == place).to(torch.get_default_dtype())


@probe()
def reward(m):
    """Reward of the step"""
    return m.reward


@probe(dtype="int64")
def rung(m):
    """Place in the chain before the step"""
    return m.place


policy = Study(__name__, title="A policy", knobs=Rate, task=nothing, learner=Policy(), probes=(loss, reward, rung), budgets=budgets(50))


# 4. A student follows one frozen linear teacher after the other.

TEACHERS = ("first", "second")


class Student:
    def __init__(self):
        self.prepared = 0

    def prepare(self, knobs, key):
        self.prepared += 1
        return {name: noise.normal(key, name, (knobs.width,)) for name in TEACHERS}

    def init(self, key, knobs, shared):
        return dict(params=torch.zeros(knobs.width))

    def step(self, state, batch, knobs, shared, now):
        error = lambda w: (batch["x"] @ (w - shared[now.phase])).square().mean()  # noqa: E731
        slope, value = grad_and_value(error)(state["params"])
        return dict(params=state["params"] - knobs.lr * slope), Moment(loss=value, params=state["params"], shared=shared, phase=now.phase)

    def coords(self, knobs, shared):
        return dict(task=list(shared))


class StudentKnobs(Rate):
    width: int = knob(3, 1, 16, valid=at_least(1), doc="inputs")


def inputs(knobs, key):
    return dict(x=noise.normal(key, "x", (8, knobs.width)))


inputs.reads = ("width",)


@probe("task")
def distance(m):
    """Distance from each teacher"""
    return torch.stack([(m.params - m.shared[name]).norm() for name in TEACHERS])


student = Study(
    __name__,
    title="A task sequence",
    knobs=StudentKnobs,
    task=inputs,
    learner=Student(),
    probes=(loss, distance),
    phases=(Phase("first"), Phase("second", 2.0)),
    budgets=budgets(30),
)

# Models trained by the supervised learner of the package.


class Trainer(Schedule, Optimizers, Rounding, Loss):
    """What every slice can vary beside its model."""


class Tokens(Transformer, Trainer, defaults={"width": 16, "depth": 1, "heads": 2}):
    context: int = knob(6, 2, 16, valid=at_least(1), doc="tokens")


class Vectors(Perceptron, Trainer, defaults={"width": 8}):
    pass


class Pictures(Convolutional, Trainer, defaults={"width": 2}):
    pass


def reversal(knobs, key):
    tokens = noise.randint(key, "tokens", 5, (4, knobs.context))
    return dict(x=tokens, y=tokens.flip(1))


def signs(knobs, key):
    x = noise.normal(key, "x", (8, 4))
    return dict(x=x, y=(x.sum(1) > 0).long())


def spots(knobs, key):
    y = noise.randint(key, "y", 2, (4,))
    return dict(x=noise.normal(key, "x", (4, 28, 28)) + y[:, None, None], y=y)


reversal.reads = ("context",)
LABELS = dict(coords=lambda knobs: dict(layer=range(knobs.depth), head=range(getattr(knobs, "heads", 1))))
FEW = (train_loss, weight_norm_total)
transformer = Study(
    __name__, "Reversal", Tokens, reversal, Supervised(lambda k: Decoder(k, 5)), (*FEW, attention_entropy), budgets(20), **LABELS
)
perceptron = Study(__name__, "Signs", Vectors, signs, Supervised(lambda k: MLP(k, 4, 2)), FEW, budgets(20), **LABELS)
convnet = Study(__name__, "Spots", Pictures, spots, Supervised(lambda k: Convnet(k, 2)), FEW, budgets(20), **LABELS)

SLICES = {"transformer": transformer, "perceptron": perceptron, "convnet": convnet}
UNLIKE = {"duel": duel, "server": server, "policy": policy, "student": student}
