"""What a notebook does to a panel: interrupts pause it, running its cell again closes it."""

import sys
import time
from types import SimpleNamespace

import pytest
from jupyter_client.manager import start_new_kernel
from learners_for_tests import parabola
from panels_for_tests import opened, slow

import workbench as wb
from workbench.panel import interrupts


class Shell:
    """As much of IPython as is looked at."""

    def __init__(self):
        self.execution_count, self.cell, self.user_ns, self.callbacks = 1, "a", {"In": [""]}, []
        self.events = SimpleNamespace(register=lambda event, callback: self.callbacks.append((event, callback)))
        self.kernel = SimpleNamespace(saved_sigint_handler=None)

    def get_parent(self):
        return {"metadata": {"cellId": self.cell}}

    def runs(self, cell):
        self.execution_count, self.cell = self.execution_count + 1, cell

    def ended(self, error):
        for _, callback in self.callbacks:
            callback(SimpleNamespace(error_in_exec=error))


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    monkeypatch.setattr(interrupts, "_shell", lambda: made)
    monkeypatch.setattr(interrupts, "_of_cell", {})
    monkeypatch.setattr(interrupts, "_open", type(interrupts._open)())
    return made


def is_open(panel):
    panel._player.join(0.3)
    return panel._player.is_alive()


def test_running_a_cell_again_closes_what_it_opened(shell):
    with opened(parabola) as first:
        shell.runs("b")
        with opened(parabola) as other:
            shell.runs("a")
            with opened(parabola) as again:
                assert not is_open(first) and is_open(other) and is_open(again)


def test_a_cell_may_open_several_panels_and_all_close_when_it_runs_again(shell):
    with opened(parabola) as first, opened(parabola) as second:
        assert is_open(first) and is_open(second)
        shell.runs("a")
        with opened(parabola) as again:
            assert not is_open(first) and not is_open(second) and is_open(again)


def test_a_front_that_names_no_cells_tells_them_apart_by_their_text(shell):
    shell.get_parent = dict
    shell.user_ns["In"].append("wb.explore('a')")
    with opened(parabola) as first:
        shell.execution_count += 1
        shell.user_ns["In"].append("wb.explore('b')")
        with opened(parabola):
            assert is_open(first)
            shell.execution_count += 1
            shell.user_ns["In"].append("wb.explore('a')")
            with opened(parabola):
                assert not is_open(first)


def test_an_interrupted_cell_pauses_every_panel_and_another_error_none(shell):
    with opened(slow) as first, opened(slow) as second:
        for panel in (first, second):
            panel.press("run")
        shell.ended(None)
        shell.ended(ValueError("something else"))
        assert first.state["running"] and second.state["running"]
        shell.ended(KeyboardInterrupt())
        assert not first.state["running"] and not second.state["running"] and is_open(first)


def test_an_interrupt_of_an_idle_kernel_pauses_too(shell):
    with opened(slow) as panel:
        panel.press("run")
        shell.kernel.saved_sigint_handler(2, None)
        assert not panel.state["running"]


def test_without_a_notebook_nothing_is_watched(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    with opened(parabola) as panel:
        assert panel not in interrupts._open


OPEN = "import workbench as wb\npanel = wb.explore('entropy_collapse', width=16, depth=1, context=8, batch=4)\npanel.press('run')"
IS_RUNNING = "print(panel.state['running'], panel._player.is_alive(), panel.state['step'] > 0)"


def test_interrupts_of_a_real_kernel_pause_and_its_cell_run_again_closes():
    manager, client = start_new_kernel(startup_timeout=60)

    def said(code, **options):
        texts = []
        hook = lambda message: texts.append(message["content"].get("text", message["content"].get("ename", "")))  # noqa: E731
        client.execute_interactive(code, timeout=60, output_hook=hook, **options)
        return "".join(texts).strip()

    try:
        assert said(OPEN) == "" and said(IS_RUNNING) == "True True True"
        time.sleep(0.5)
        manager.interrupt_kernel()  # idle
        time.sleep(0.5)
        assert said(IS_RUNNING) == "False True True"
        client.execute("panel.press('run'); panel.wait()", stop_on_error=False)
        time.sleep(1.5)
        manager.interrupt_kernel()
        assert said(IS_RUNNING) == "False True True"
        said("first = panel")
        assert said(OPEN) == ""
        assert said("first._player.join(5); print(first._player.is_alive(), panel._player.is_alive())") == "False True"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert wb.explore
