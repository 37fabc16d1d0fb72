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
    for is refused by pyarrow; tuples and sets in the cells of a data frame come back as arrays.

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
            TypeError: It is none.
            Exception: What pyarrow raises for columns that Parquet cannot hold.
        """
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        library, table = _as_arrow(value, pa)
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
