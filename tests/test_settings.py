"""Settings that hold several values, and how a wrong one is refused."""

from __future__ import annotations

import math
import operator

import pytest

from switchback.settings import SettingInvalid, Settings, settings_from

FUNCTIONS = {
    "SWITCHBACK_COMPARE_FUNCTIONS": Settings.comparators,
    "SWITCHBACK_CHECK_FUNCTIONS": Settings.checks,
}

of_each = pytest.mark.parametrize("variable", FUNCTIONS)


def refused(variable: str, text: str) -> str:
    with pytest.raises(SettingInvalid) as error:
        FUNCTIONS[variable](settings_from({variable: text}))
    assert error.value.name == variable
    return str(error.value)


@of_each
def test_functions_are_imported_by_name(variable):
    settings = settings_from({variable: "same=operator:eq, near=math:isclose,"})
    assert FUNCTIONS[variable](settings) == {"same": operator.eq, "near": math.isclose}


def test_functions_to_compare_by_do_not_check_and_the_other_way_round():
    settings = settings_from(
        dict(zip(FUNCTIONS, ("same=operator:eq", "other=operator:ne"), strict=True))
    )
    assert settings.comparators() == {"same": operator.eq}
    assert settings.checks() == {"other": operator.ne}


@of_each
def test_there_are_no_functions_when_none_are_named(variable):
    assert FUNCTIONS[variable](Settings()) == {}
    assert FUNCTIONS[variable](settings_from({variable: ""})) == {}


@of_each
@pytest.mark.parametrize(
    "text", ["operator:eq", "same=operator", "same=", "=operator:eq", "a b=operator:eq", "x=a:b:c"]
)
def test_what_does_not_name_a_function_is_refused(variable, text):
    assert "is not `name=module:callable`" in refused(variable, text)


@of_each
def test_a_name_for_two_functions_is_refused(variable):
    assert "same occurs twice" in refused(variable, "same=operator:eq,same=operator:ne")


@of_each
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("same=no_such_module:eq", "ModuleNotFoundError"),
        ("same=operator:no_such", "AttributeError"),
        ("same=math:pi", "cannot be called"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused_by_name(variable, text, said):
    assert refused(variable, text).startswith(f"{variable}: {text}")
    assert said in refused(variable, text)


def test_roots_of_artifacts_are_separated_by_colons():
    roots = settings_from({"SWITCHBACK_ARTIFACT_ROOTS": "/a:/b"}).artifact_roots
    assert [str(root) for root in roots] == ["/a", "/b"]
