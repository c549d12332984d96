import math

import pytest
import torch
from torch.func import vmap
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from workbench.errors import InputError
from workbench.schedules import Schedule, rate


class Settings(Schedule):
    pass


def rates(steps: int, **knobs: float | str) -> list[float]:
    return [rate(Settings(**knobs), torch.tensor(float(step), dtype=torch.float64)).item() for step in range(steps)]


def torch_rates(steps: int, lr: float, scheduler: type[LRScheduler], **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = scheduler(optimizer, **settings)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_a_constant_rate_is_the_peak():
    assert rates(5, lr=0.01) == [0.01] * 5


def test_the_first_update_of_a_warmup_of_w_steps_has_a_wth_of_the_rate():
    assert rates(7, lr=0.5, warmup=5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5], rel=1e-12)
    assert rates(3, lr=0.5, warmup=1) == [0.5] * 3
    assert rates(9, lr=0.1, warmup=6) == pytest.approx(torch_rates(9, 0.1, LinearLR, start_factor=1 / 6, total_iters=5), rel=1e-12)


def test_cosine_equals_torch():
    truth = torch_rates(41, 0.1, CosineAnnealingLR, T_max=40, eta_min=0.02)
    assert rates(41, lr=0.1, schedule="cosine", horizon=40, final_fraction=0.2) == pytest.approx(truth, rel=1e-12)
    assert rates(100, lr=0.1, schedule="cosine", horizon=40, final_fraction=0.2)[40:] == pytest.approx([0.02] * 60, rel=1e-12)


def test_linear_equals_torch():
    truth = torch_rates(60, 0.1, LinearLR, start_factor=1.0, end_factor=0.25, total_iters=40)
    assert rates(60, lr=0.1, schedule="linear", horizon=40, final_fraction=0.25) == pytest.approx(truth, rel=1e-12)


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_warmup_then_cosine_equals_torch():
    def both(optimizer):
        parts = [LinearLR(optimizer, start_factor=0.1, total_iters=9), CosineAnnealingLR(optimizer, T_max=40)]
        return SequentialLR(optimizer, parts, milestones=[10])

    ours = rates(50, lr=0.1, warmup=10, schedule="cosine", horizon=50)
    assert ours == pytest.approx(torch_rates(50, 0.1, both), rel=1e-12)
    assert max(ours) == ours[10] == 0.1


def test_rsqrt_equals_the_schedule_of_the_transformer_paper():
    # arXiv 1706.03762, equation 3, without the factor of the width, scaled to a peak of 1: the rate of update s + 1.
    truth = [math.sqrt(16) * min((s + 1) ** -0.5, (s + 1) * 16**-1.5) for s in range(100)]
    assert rates(100, lr=1.0, warmup=16, schedule="rsqrt") == pytest.approx(truth, rel=1e-12)
    assert rates(100, lr=1.0, schedule="rsqrt") == pytest.approx([(s + 1) ** -0.5 for s in range(100)], rel=1e-12)


def test_warming_up_again_leaves_earlier_steps_and_the_decay_alone():
    once = rates(60, lr=0.1, warmup=5, schedule="cosine", horizon=50, final_fraction=0.1)
    again = rates(60, lr=0.1, warmup=5, warmup_from=20, schedule="cosine", horizon=50, final_fraction=0.1)
    assert again[5:20] == once[5:20] and again[24:] == once[24:]
    assert [b / a for a, b in zip(once[20:25], again[20:25], strict=True)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=1e-12)
    assert again[:5] == [0.1] * 5


def test_a_horizon_within_the_warmup_ends_the_decay_at_once():
    assert rates(8, lr=1.0, warmup=4, schedule="linear", horizon=2) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "rsqrt"])
def test_every_knob_may_be_a_lane(kind):
    lanes = [
        dict(lr=0.1, warmup=0, warmup_from=0, final_fraction=0.0, horizon=30),
        dict(lr=0.2, warmup=7, warmup_from=11, final_fraction=0.3, horizon=20),
        dict(lr=0.3, warmup=40, warmup_from=0, final_fraction=1.0, horizon=10),
    ]
    stacked = {name: torch.tensor([lane[name] for lane in lanes]) for name in lanes[0]}
    settings = Settings(schedule=kind)
    for step in (0.0, 5.0, 12.0, 25.0, 99.0):
        at_once = vmap(lambda knobs, s=step: rate(settings.filled(knobs), torch.tensor(s)))(stacked)
        alone = [rate(settings.replace(**lane), torch.tensor(step)).item() for lane in lanes]
        assert at_once.tolist() == pytest.approx(alone, rel=1e-6)
        assert rate(settings, torch.tensor(int(step))) == rate(settings, torch.tensor(step))


def test_lambda_and_bounds():
    assert rates(6, lr=0.1, warmup=4) == pytest.approx(torch_rates(6, 0.1, LambdaLR, lr_lambda=lambda s: min(1, (s + 1) / 4)))
    for wrong in (dict(lr=0.0), dict(warmup=-1), dict(final_fraction=1.5), dict(horizon=0), dict(schedule="exponential")):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Settings(**wrong)
