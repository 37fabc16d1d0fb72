"""The format ``parquet``: tables of pandas, polars and pyarrow."""

from __future__ import annotations

import io
import sys
from typing import Any, Final

from persidict.codecs.codec import Buffer, Codec, check_installed

_LIBRARY: Final = b"persidict.library"
_PANDAS: Final = b"pandas"  # where pandas' own metadata are, by pyarrow's convention
_KINDS: Final = ("pandas", "polars", "pyarrow")


class ParquetCodec(Codec):
    """Data frames of pandas and polars and tables of pyarrow, as Apache Parquet.

    What is read is of the class `table_class`; without it, of the library that wrote it, and
    a pyarrow table where a file does not say. Reading runs no code. What Parquet has no type
    for is refused by pyarrow; tuples and sets in the cells of a data frame come back as arrays,
    dicts with the keys of all, and times in whole seconds in milliseconds.

    Args:
        table_class: `pandas.DataFrame`, `polars.DataFrame`, `pyarrow.Table`, or None.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    content_type = "application/vnd.apache.parquet"

    def __init__(self, table_class: type | None = None) -> None:
        check_installed("pyarrow", needed_by="the format 'parquet'", extra="parquet")
        library = "" if table_class is None else table_class.__module__.partition(".")[0]
        self._library = library if library in _KINDS else ""

    def encode(self, value: Any) -> Buffer:
        """Turn a table into bytes.

        Raises:
            TypeError: It is none, or has a column of Python objects.
            ValueError: Names of columns, or rows without columns, would not come back.
            Exception: What pyarrow raises for columns that Parquet cannot hold.
        """
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        library, table = _as_arrow(value, pa)
        _check_comes_back(library, value, table)
        metadata = {**(table.schema.metadata or {}), _LIBRARY: library.encode()}
        stream = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), stream)
        return memoryview(stream.getvalue())

    def decode(self, data: Buffer) -> Any:
        """Turn bytes into a table.

        Raises:
            MissingExtraError: The library that it is to be a table of is not installed.
            Exception: What pyarrow raises for damaged data.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(data))
        metadata = dict(table.schema.metadata or {})
        written_by = metadata.pop(_LIBRARY, _PANDAS if _PANDAS in metadata else b"pyarrow")
        library = self._library or written_by.decode()
        table = table.replace_schema_metadata(metadata or None)
        if library == "pandas":
            check_installed("pandas", needed_by="the format 'parquet'", extra="pandas")
            return table.to_pandas()
        if library == "polars":
            check_installed("polars", needed_by="the format 'parquet'", extra="polars")
            import polars

            return polars.from_arrow(table)
        return table


def _as_arrow(value: Any, pa: Any) -> tuple[str, Any]:
    """Return the library that a table is of, and the table as one of pyarrow."""
    if isinstance(value, pa.Table):
        return "pyarrow", value
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return "pandas", pa.Table.from_pandas(value)
    if polars is not None and isinstance(value, polars.DataFrame):
        return "polars", value.to_arrow()
    raise TypeError(
        "parquet holds data frames of pandas and polars and tables of pyarrow,"
        f" not {type(value).__name__}"
    )


def _check_comes_back(library: str, value: Any, table: Any) -> None:
    """Refuse a table whose columns would come back as others, or not at all."""
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"parquet cannot hold two columns of one name: {twice!r:.80}")
    if not names and table.num_rows:
        raise ValueError(f"parquet cannot hold rows without columns, here {table.num_rows}")
    if library == "pandas":
        _refuse_sets(value)
    ours: list[Any] = names
    theirs: list[Any] = names
    if library == "pandas":
        ours, theirs = list(value.columns), list(table.slice(0, 0).to_pandas().columns)
    elif library == "polars":
        from polars import DataFrame, Object

        objects = [name for name, kind in value.schema.items() if kind == Object]
        if objects:
            raise TypeError(f"parquet cannot hold Python objects: column {objects[0]!r:.80}")
        ours, theirs = value.columns, DataFrame(table.slice(0, 0)).columns
    for one, other in zip(ours, theirs, strict=True):
        are_nan = one != one and other != other
        if type(one) is not type(other) or not (one == other or are_nan):
            raise ValueError(
                f"parquet cannot hold a column {one!r:.80} beside these others: it would come"
                f" back as {other!r:.80}"
            )


def _refuse_sets(frame: Any) -> None:
    """Refuse columns of sets, which pyarrow takes for lists."""
    infer_dtype = sys.modules["pandas"].api.types.infer_dtype
    for at, (name, kind) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        if str(kind) != "object" or infer_dtype(frame.iloc[:, at]) != "mixed":
            continue
        if any(isinstance(cell, set) for cell in frame.iloc[:, at]):
            raise TypeError(f"parquet cannot hold sets: column {name!r:.80}")
