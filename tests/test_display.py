"""What people see of a dictionary is bounded, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from persidict import FileDirDict, LocalDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple


class Counted(LocalDict[int]):
    """Counts what is listed and what is read."""

    listed = 0
    read = 0

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        for key in super()._keys(page_size=page_size):
            self.listed += 1
            yield key

    def _load_many(self, keys: Any) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        for found in super()._load_many(keys):
            self.read += 1
            yield found


def filled(count: int) -> Counted:
    d = Counted()
    d.update({f"k{number:04}": number for number in range(count)})
    d.listed = d.read = 0
    return d


def test_a_small_dictionary_is_shown_as_the_dict_that_it_is() -> None:
    d = LocalDict[int]()
    d["a"], d["b", "c"] = 1, 2
    assert eval(str(d)) == {("a",): 1, ("b", "c"): 2}


def test_of_a_larger_one_twenty_items_are_shown_and_how_many_more_there_are() -> None:
    text = str(filled(25))
    assert text.count(":") == 20
    assert text.endswith(", ... and 5 more}")


def test_an_f_string_shows_the_same() -> None:
    d = filled(25)
    assert f"{d}" == str(d)


def test_what_is_read_and_listed_for_it_is_bounded() -> None:
    d = filled(3000)
    assert "... and at least 980 more" in str(d)
    assert (d.listed, d.read) == (1000, 20)


@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_a_view_shows_twenty_entries_and_that_there_are_more(view: str) -> None:
    d = filled(3000)
    text = repr(getattr(d, view)())
    shown = list(islice(getattr(d, view)(), 20))
    assert text.endswith(f"{', '.join(map(repr, shown))}, ...])")


def test_a_view_of_few_entries_shows_all_of_them() -> None:
    assert repr(filled(2).values()) in ("ValuesView([0, 1])", "ValuesView([1, 0])")


def test_tab_completion_offers_strings_and_tuples_as_one_would_type_them() -> None:
    d = LocalDict[int]()
    d["a"], d["b", "c"] = 1, 2
    assert sorted(d._ipython_key_completions_(), key=str) == [("b", "c"), "a"]


def test_tab_completion_looks_at_one_page_of_keys() -> None:
    d = filled(3000)
    assert len(d._ipython_key_completions_()) == 1000
    assert d.listed == 1000


def test_a_file_dir_dict_is_shown_within_the_same_bounds(tmp_path: Any) -> None:
    d = FileDirDict[int](base_dir=str(tmp_path), fsync=False)
    d.update({f"k{number:04}": number for number in range(30)})
    assert str(d).endswith(", ... and 10 more}")
