"""Settings that hold several values, and how a wrong one is refused."""

from __future__ import annotations

import math
import operator

import pytest

from switchback.settings import SettingInvalid, Settings, settings_from

COMPARE = "SWITCHBACK_COMPARE_FUNCTIONS"


def refused(text: str) -> str:
    with pytest.raises(SettingInvalid) as error:
        settings_from({COMPARE: text}).comparators()
    assert error.value.name == COMPARE
    return str(error.value)


def test_functions_to_compare_by_are_imported_by_name():
    settings = settings_from({COMPARE: "same=operator:eq, near=math:isclose,"})
    assert settings.comparators() == {"same": operator.eq, "near": math.isclose}


def test_there_are_no_functions_when_none_are_named():
    assert Settings().comparators() == {}
    assert settings_from({COMPARE: ""}).comparators() == {}


@pytest.mark.parametrize(
    "text", ["operator:eq", "same=operator", "same=", "=operator:eq", "a b=operator:eq", "x=a:b:c"]
)
def test_what_does_not_name_a_function_is_refused(text):
    assert "is not `name=module:callable`" in refused(text)


def test_a_name_for_two_functions_is_refused():
    assert "same occurs twice" in refused("same=operator:eq,same=operator:ne")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("same=no_such_module:eq", "ModuleNotFoundError"),
        ("same=operator:no_such", "AttributeError"),
        ("same=math:pi", "cannot be called"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused_by_name(text, said):
    assert refused(text).startswith(f"{COMPARE}: {text}")
    assert said in refused(text)


def test_roots_of_artifacts_are_separated_by_colons():
    roots = settings_from({"SWITCHBACK_ARTIFACT_ROOTS": "/a:/b"}).artifact_roots
    assert [str(root) for root in roots] == ["/a", "/b"]
