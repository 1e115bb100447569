# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.kernel import kabi

symbols = st.dictionaries(
    st.from_regex(r"[a-z_]{1,6}", fullmatch=True),
    st.integers(0, 0xFFFFFFFF).map(lambda crc: f"0x{crc:08x}"),
    max_size=8,
)


def test_both_forms_are_read() -> None:
    text = "0x51C031e9\t____pagevec_lru_add\tvmlinux\tEXPORT_SYMBOL\n# comment\n0x1\tx\t\n\n"
    assert kabi.parse_symvers(text) == {"____pagevec_lru_add": "0x51c031e9", "x": "0x1"}


def test_a_line_of_the_published_list_may_have_spaces() -> None:
    assert kabi.parse_symvers("0x5e95b1cd\tx   vmlinux EXPORT_SYMBOL\n") == {"x": "0x5e95b1cd"}


@given(symbols, symbols)
def test_a_build_is_the_same_as_itself(listed: dict[str, str], built: dict[str, str]) -> None:
    result = kabi.compare(listed, built, built)
    assert result.is_same
    assert result.compared == len(listed.keys() & built.keys())


def test_changed_and_lost_symbols_are_named_and_others_do_not_count() -> None:
    listed = {"same": "0x1", "changed": "0x2", "gone": "0x3", "not_here": "0x4"}
    stock = {"same": "0x1", "changed": "0x2", "gone": "0x3", "unlisted": "0x5"}
    result = kabi.compare(listed, stock, {"same": "0x1", "changed": "0x9", "unlisted": "0x6"})
    assert (result.changed, result.gone) == (("changed",), ("gone",))
    assert (result.listed, result.compared, result.as_published) == (4, 3, 1)
    assert not result.is_same
    assert result.describe()["state"] == "changed"
