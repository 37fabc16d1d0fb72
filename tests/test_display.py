"""What people see of a dictionary is bounded, whatever it holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from persidict import ExpiringDict, FileDirDict, LocalDict, MeasuredDict
from persidict.contract import display, html
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.traits import Traits


class Counted(LocalDict[int]):
    """Counts what is listed and what is read."""

    listed = 0
    read = 0
    loaded = 0
    looked = 0

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        for key in super()._keys(page_size=page_size):
            self.listed += 1
            yield key

    def _load_many(self, keys: Any) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        for found in super()._load_many(keys):
            self.read += 1
            yield found

    def _load(self, key: Any, **options: Any) -> tuple[Any, Any]:
        self.loaded += 1
        return super()._load(key, **options)

    def _head(self, key: Any) -> Any:
        self.looked += 1
        return super()._head(key)


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


class Heavy:
    """Has a repr that is as long as it is told to be."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __repr__(self) -> str:
        return "x" * self.length


SHOWS: dict[str, Callable[[LocalDict[Any]], str]] = {
    "str": str,
    "f-string": lambda d: f"{d}",
    "items": lambda d: repr(d.items()),
    "values": lambda d: repr(d.values()),
    "items of a range": lambda d: repr(d.items(start="a")),
    "values of a range": lambda d: repr(d.values(start="a")),
    "plain": lambda d: repr(d.plain()),
    "measured": lambda d: str(MeasuredDict(wrapped_dict=d)),
}


@pytest.mark.parametrize("show", SHOWS)
def test_what_is_shown_of_one_value_is_bounded(show: str) -> None:
    d = Counted()
    d["a"] = Heavy(10_000)  # type: ignore[assignment]
    shown = SHOWS[show](d)
    assert f"{'x' * 1000}..." in shown
    assert shown.count("x") == 1000


@pytest.mark.parametrize("show", SHOWS)
def test_a_large_value_is_not_read_to_be_shown(show: str) -> None:
    d = Counted()
    large, small = os.urandom(display.LARGEST_READ), 7
    d["large"], d["small"] = large, small  # type: ignore[assignment]
    shown = SHOWS[show](d)
    assert f"<{d.info('large').size:,} bytes>" in shown
    assert "7" in shown
    assert d.read == 1


@pytest.mark.parametrize("show", SHOWS)
def test_what_cannot_be_decoded_does_not_hide_the_rest(show: str, tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=tmp_path)
    d["good"], d["bad"] = 7, 8
    d.raw["bad"] = b"no pickle"
    shown = SHOWS[show](d)  # type: ignore[arg-type]
    assert "7" in shown
    assert "<unreadable>" in shown


def test_where_the_listing_tells_sizes_none_is_asked_for() -> None:
    class Told(Counted):
        @property
        def _traits(self) -> Traits:
            return Traits(reads_are_cheap=False, listing_brings_versions=True)

        def _versions(self, key_range: Any = None) -> Any:
            return ((key, super(Counted, self)._head(key)) for key in self._keys())

    d = Told()
    d.update({f"k{number}": number for number in range(30)})
    d.read = d.looked = 0
    assert str(d).endswith("... and 10 more}")
    assert (d.read, d.looked) == (20, 0)


# ------------------------------------------------------------------ notebooks


def test_a_notebook_is_shown_class_place_number_sizes_and_times(tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=str(tmp_path), digest_len=0)
    d["a", "b"] = 1
    shown = d._repr_html_()
    for part in (
        "<b>FileDirDict</b>",
        tmp_path.as_uri(),
        "1 item<",
        "&#x27;a&#x27;, &#x27;b&#x27;",
    ):
        assert part in shown
    info = d.info(("a", "b"))
    written = datetime.fromtimestamp(info.last_modified, UTC)
    assert f">{info.size}</td>" in shown
    assert f"{written:%Y-%m-%d %H:%M:%S}" in shown


def test_a_key_in_a_notebook_is_a_link_to_what_is_inside(tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=str(tmp_path))
    d["a"] = 1
    assert f'href="{Path(d.location("a")).as_uri()}"' in d._repr_html_()


def test_what_a_wrapper_has_in_it_is_in_a_part_that_opens() -> None:
    d = MeasuredDict[int](wrapped_dict=ExpiringDict(wrapped_dict=LocalDict(), ttl=60))
    assert "<li><b>ExpiringDict</b> </li><li><b>LocalDict</b> </li>" in d._repr_html_()


def test_whatever_names_a_place_is_escaped_in_a_notebook(tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=str(tmp_path / "<script>alert('1')&\"<b>"))
    d["a"] = 1
    shown = d._repr_html_()
    assert "<script" not in shown
    assert "alert('" not in shown


def test_a_notebook_costs_one_page_of_keys_and_twenty_looks_and_no_value() -> None:
    d = filled(3000)
    assert "at least 1000 items" in d._repr_html_()
    assert (d.listed, d.read, d.loaded, d.looked) == (1000, 0, 0, 20)


def test_a_notebook_shows_twenty_keys_and_how_many_more_there_are() -> None:
    shown = filled(25)._repr_html_()
    assert shown.count("<tr>") == 1 + 20 + 1
    assert "... and 5 more" in shown


def test_an_empty_dictionary_is_shown_without_a_table() -> None:
    shown = LocalDict[int]()._repr_html_()
    assert "0 items" in shown
    assert "<table>" not in shown


def test_a_notebook_is_told_the_policies_of_a_handle() -> None:
    assert "(pkl, int, append-only, read-only)" in (
        LocalDict(append_only=True, base_class_for_values=int).read_only()._repr_html_()
    )


class Remote(LocalDict[int]):
    """Is far away, and answers when it is told to."""

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__()
        self.answer = answer

    @property
    def _traits(self) -> Traits:
        return Traits(reads_are_cheap=False)

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        self.answer()
        return super()._keys(page_size=page_size)


def test_a_server_that_does_not_answer_holds_up_no_notebook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html, "SECONDS", 0.01)
    answers = Event()
    try:
        assert "no answer within 0.01 s" in Remote(answers.wait)._repr_html_()
    finally:
        answers.set()


def test_a_listing_that_goes_on_is_shown_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "SECONDS", 0.0)
    assert "at least 1 items" in filled(30)._repr_html_()


def test_an_error_of_the_storage_is_shown_in_the_place_of_the_content() -> None:
    def fail() -> None:
        raise PermissionError(13, "not <you>")

    shown = Remote(fail)._repr_html_()
    assert "PermissionError: [Errno 13] not &lt;you&gt;" in shown
