"""Masks of any width, against writers and readers that work another way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdeploy.tuning.cpus import list_text, mask_text, parse_list, parse_mask
from tests.unit.tuning.host_side import host_side
from tests.unit.tuning.shapes import kernel_mask

WIDTHS = st.one_of(
    st.sampled_from([1, 2, 4, 31, 32, 33, 63, 64, 65, 255, 256]), st.integers(1, 600)
)


@st.composite
def sets_of_cpus(draw: st.DrawFn) -> tuple[int, frozenset[int]]:
    width = draw(WIDTHS)
    return width, frozenset(draw(st.sets(st.integers(0, width - 1))))


def read_by_digits(text: str) -> set[int]:
    """The CPUs of a mask digit by digit from its end, each worth four CPUs."""
    digits = [digit for digit in reversed(text) if digit != ","]
    return {
        4 * place + bit
        for place, digit in enumerate(digits)
        for bit in range(4)
        if "0123456789abcdef".index(digit) // 2**bit % 2
    }


@settings(deadline=None)
@given(sets_of_cpus())
def test_a_mask_is_what_the_kernel_prints(case: tuple[int, frozenset[int]]) -> None:
    width, cpus = case
    text = mask_text(cpus, width)
    assert text == kernel_mask(sorted(cpus), width)
    assert read_by_digits(text) == cpus


@settings(deadline=None)
@given(sets_of_cpus())
def test_a_mask_comes_back(case: tuple[int, frozenset[int]]) -> None:
    width, cpus = case
    assert parse_mask(mask_text(cpus, width)) == cpus


@settings(deadline=None)
@given(sets_of_cpus(), st.integers(0, 300))
def test_the_host_reads_it_the_same_way(case: tuple[int, frozenset[int]], more: int) -> None:
    width, cpus = case
    # A kernel prints as many bits as it was built for, the plan as many as there are CPUs.
    wider = mask_text(cpus, width + more)
    assert host_side.same("mask", wider, mask_text(cpus, width))
    assert host_side.parse_mask(wider) == sum(2**cpu for cpu in cpus)
    assert not host_side.same("mask", wider, mask_text(cpus ^ {0}, width))


@pytest.mark.parametrize(
    ("width", "cpu", "text"),
    [
        (31, 30, "40000000"),
        (32, 31, "80000000"),
        (33, 32, "1,00000000"),
        (63, 62, "40000000,00000000"),
        (64, 63, "80000000,00000000"),
        (255, 254, "40000000" + ",00000000" * 7),
        (6, 5, "20"),
    ],
)
def test_the_last_cpu(width: int, cpu: int, text: str) -> None:
    assert mask_text([cpu], width) == text
    assert parse_mask(text) == {cpu}


def test_what_is_no_mask() -> None:
    with pytest.raises(ValueError, match="CPU 4 is not one of 4"):
        mask_text([4], 4)
    for text in ("", "g", "1,", "123456789", "0x1"):
        with pytest.raises(ValueError, match=r"."):
            parse_mask(text)


@settings(deadline=None)
@given(st.sets(st.integers(0, 70000)))
def test_a_list_comes_back(numbers: set[int]) -> None:
    text = list_text(numbers)
    if numbers:
        assert set(parse_list(text)) == numbers
    # Runs are as long as they can be, as the kernel prints them.
    spans = [
        (int(part.partition("-")[0]), int(part.rpartition("-")[2]))
        for part in text.split(",")
        if part
    ]
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1.5"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match="not a list"):
        parse_list(text)
