from __future__ import annotations

import io
import os
import signal
import threading

import pytest
import typer
from rich.console import Console

from phasesam.cli.console import Interruption, exits_cleanly
from phasesam.cli.exit_codes import DESCRIPTIONS, ExitCode
from phasesam.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSettingError("x"), 2),
        (errors.InvalidPromptError("x"), 2),
        (errors.InvalidImageError("x"), 1),
        (errors.FileFormatError("x"), 1),
        (errors.TrainingError("x"), 1),
        (errors.UnknownModelError("x"), 3),
        (errors.DownloadError("x"), 3),
        (errors.DeviceMemoryError("x"), 3),
        (errors.SaveError("x"), 4),
        (PermissionError(13, "Permission denied", "a.tif"), 1),
        (errors.CancelledError("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes_and_one_line(error, code, capsys):
    @exits_cleanly
    def command():
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_markup_in_a_message_is_printed_as_it_is(capsys):
    @exits_cleanly
    def command():
        raise errors.InvalidSettingError("expected [0, 1], got [/bold]")

    with pytest.raises(typer.Exit):
        command()
    assert "expected [0, 1], got [/bold]" in capsys.readouterr().err


def test_closed_pipes_are_left_to_typer():
    @exits_cleanly
    def command():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        command()


def test_programming_errors_are_not_hidden():
    @exits_cleanly
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


def test_codes_are_returned_and_described():
    @exits_cleanly
    def command(code):
        return code

    command(ExitCode.OK)
    with pytest.raises(typer.Exit) as caught:
        command(ExitCode.SOME_FAILED)
    assert caught.value.exit_code == 1
    assert set(DESCRIPTIONS) == set(ExitCode)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be raised for one process there")
def test_first_interrupt_asks_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    text = io.StringIO()
    with Interruption(Console(file=text)) as interruption:
        assert not interruption.requested()
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested()
        assert "again" in text.getvalue()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interruption_works_outside_the_main_thread():
    answers = []

    def work():
        with Interruption(Console(file=io.StringIO())) as interruption:
            answers.append(interruption.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
