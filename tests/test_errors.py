from __future__ import annotations

import warnings

import pytest

from ecad import EcadError, EcadWarning, ScheduleError
from ecad.errors import NotFiniteError


@pytest.mark.parametrize("error", [EcadError, EcadWarning, NotFiniteError, ScheduleError])
def test_every_error_is_an_ecad_error_and_a_value_error(error: type[Exception]) -> None:
    assert issubclass(error, EcadError)
    with pytest.raises(ValueError, match="odd"):
        raise error("odd")


def test_an_ecad_warning_can_be_warned_of_and_made_an_error() -> None:
    with pytest.warns(UserWarning, match="odd"):
        warnings.warn(EcadWarning("odd"), stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EcadWarning)
        with pytest.raises(EcadError, match="odd"):
            warnings.warn(EcadWarning("odd"), stacklevel=1)


def test_names_file_problem_place_values_and_remedy_in_this_order() -> None:
    place = {"file": "a.json", "step": "003", "block": "5", "component": "ff"}
    error = ScheduleError("odd", **place, expected="x", found="y", remedy="remove it")
    assert str(error) == "a.json: odd (step 003, block 5, component ff): expected x, found y; remove it"
    assert str(ScheduleError("odd", block="5", found="y")) == "odd (block 5): found y"
    assert str(ScheduleError("odd", remedy="remove it")) == "odd; remove it"
    assert str(ScheduleError("odd")) == "odd"


def test_stays_on_one_short_line_whatever_it_quotes() -> None:
    text = str(ScheduleError("odd\n", file="a\nb", block="\x1b[31m\ud800", found="z" * 500, remedy="do\nit"))
    assert text == r"a\nb: odd\n (block \x1b[31m\ud800): found " + "z" * 97 + r"...; do\nit"
