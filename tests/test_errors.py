from __future__ import annotations

from ecad import EcadError, ScheduleError


def test_a_schedule_error_is_a_users_mistake() -> None:
    assert issubclass(ScheduleError, EcadError)


def test_says_place_problem_expected_and_found_in_this_order() -> None:
    error = ScheduleError("odd", file="a.json", step="003", block="5", component="ff", expected="x", found="y")
    assert str(error) == "a.json: step 003, block 5, component ff: odd: expected x, found y"
    assert str(ScheduleError("odd", block="5", found="y")) == "block 5: odd: found y"
    assert str(ScheduleError("odd")) == "odd"


def test_stays_on_one_short_line_whatever_it_quotes() -> None:
    text = str(ScheduleError("odd\n", file="a\nb", block="\x1b[31m\ud800", found="z" * 500))
    assert text == r"a\nb: block \x1b[31m\ud800: odd\n: found " + "z" * 97 + "..."
