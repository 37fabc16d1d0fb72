"""jsonpickle, made strict and safe for threads; imported when json is first needed."""

from __future__ import annotations

import copy
import functools
import json
import re
import sys
import threading
from typing import Any, Final, NoReturn

from jsonpickle import handlers, tags  # type: ignore[import-untyped]
from jsonpickle.pickler import Pickler  # type: ignore[import-untyped]
from jsonpickle.unpickler import Unpickler, loadclass  # type: ignore[import-untyped]

_MEANINGFUL_KEYS: Final = ("py/", tags.JSON_KEY)
"""How strings begin that jsonpickle would take for its own when they are keys."""

_IMPORTED_NAME: Final = re.compile(
    rf'"(?:{tags.OBJECT}|{tags.TYPE}|{tags.FUNCTION})"\s*:\s*"([^"\\]+)"'
)

_PANDAS_HANDLERS: Final = {
    "DataFrame": "PandasDfHandler",
    "Series": "PandasSeriesHandler",
    "PeriodIndex": "PandasPeriodIndexHandler",
    "MultiIndex": "PandasMultiIndexHandler",
    "Index": "PandasIndexHandler",
    "Timestamp": "PandasTimestampHandler",
    "Period": "PandasPeriodHandler",
    "Interval": "PandasIntervalHandler",
}
"""jsonpickle's handlers of pandas' classes, subclasses before their bases."""

_registration: Final = threading.RLock()
_registered: Final[set[str]] = set()


def dumps(value: Any) -> str:
    """Write a value as JSON text."""
    _register_handlers()
    pickler = _StrictPickler(keys=True, backend=_StandardJson)
    text = json.dumps(pickler.flatten(value), indent=4)
    for name in set(_IMPORTED_NAME.findall(text)):
        if loadclass(name) is None and handlers.get(name) is None:
            raise TypeError(f"json cannot hold a {name}, which cannot be imported")
    return text


def loads(text: str) -> Any:
    """Read a value from JSON text."""
    if not sys.modules.keys() >= {"numpy", "pandas"}:
        # The handler must be there before the class is met: its module comes first
        for name in set(_IMPORTED_NAME.findall(text)):
            loadclass(name)
    _register_handlers()
    unpickler = _StrictUnpickler(keys=True, backend=_StandardJson, on_missing=_refuse)
    return unpickler.restore(json.loads(text))


class _StandardJson:
    """The standard library's json, whatever else jsonpickle finds installed."""

    @staticmethod
    def encode(obj: Any, **options: Any) -> str:
        return json.dumps(obj, **options)

    @staticmethod
    def decode(text: str) -> Any:
        return json.loads(text)


class _StrictPickler(Pickler):  # type: ignore[misc]
    """Raises for what jsonpickle would leave out or replace by None."""

    def _pickle_warning(self, obj: Any) -> NoReturn:
        raise TypeError(f"json cannot hold {obj!r}")

    def _flatten_obj_instance(self, obj: Any) -> Any:
        if type(obj) is bytearray:  # whose content jsonpickle drops
            return {tags.REDUCE: [self._flatten(bytearray), self._flatten((bytes(obj),))]}
        return super()._flatten_obj_instance(obj)

    def _flatten_key_value_pair(self, k: str, v: Any, data: dict[str, Any]) -> dict[str, Any]:
        data[k] = self._flatten(v)
        return data

    def _flatten_string_key_value_pair(
        self, k: Any, v: Any, data: dict[str, Any]
    ) -> dict[str, Any]:
        return self._flatten_key_value_pair(k, v, data) if _is_plain_key(k) else data

    def _flatten_non_string_key_value_pair(
        self, k: Any, v: Any, data: dict[str, Any]
    ) -> dict[str, Any]:
        if _is_plain_key(k):
            return data
        return self._flatten_key_value_pair(self._escape_key(k), v, data)


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, str) and not key.startswith(_MEANINGFUL_KEYS)


class _StrictUnpickler(Unpickler):  # type: ignore[misc]
    """Raises where jsonpickle would hand out something else than what was stored."""

    def _restore_type(self, obj: Any) -> Any:
        found = super()._restore_type(obj)
        return _found(None if found is obj else found, obj[tags.TYPE])

    def _restore_function(self, obj: Any) -> Any:
        return _found(super()._restore_function(obj), obj[tags.FUNCTION])

    def _restore_module(self, obj: Any) -> Any:
        return _found(super()._restore_module(obj), obj[tags.MODULE])

    def _restore_object(self, obj: Any) -> Any:
        try:
            return super()._restore_object(obj)
        except TypeError as error:  # which jsonpickle takes for an empty tuple, set or list
            raise ValueError(f"an object cannot be rebuilt: {error}") from error

    def _restore_reduce(self, obj: Any) -> Any:
        try:
            return super()._restore_reduce(obj)
        except TypeError as error:
            raise ValueError(f"an object cannot be rebuilt: {error}") from error


def _found(found: Any, name: str) -> Any:
    return _refuse(name) if found is None else found


def _refuse(name: str) -> NoReturn:
    # jsonpickle's own error is no Exception, and would slip through everybody's hands
    raise ImportError(f"{name} cannot be imported", name=name)


def _register_handlers() -> None:
    if "numpy" in sys.modules:
        _register_numpy_handlers()
    if "pandas" in sys.modules and "pandas" not in _registered:
        _register_pandas_handlers()


def _register_numpy_handlers() -> None:
    import numpy as np

    if handlers.get(np.ndarray) is not None and not _is_shared(handlers.get(np.ndarray)):
        return
    with _registration:
        if handlers.get(np.ndarray) is None:
            from jsonpickle.ext import numpy as extension  # type: ignore[import-untyped]

            extension.register_handlers()
        handler = handlers.get(np.ndarray)
        if _is_shared(handler):
            handlers.register(np.ndarray, functools.partial(_copy_for, handler), base=True)


def _is_shared(handler: Any) -> bool:
    """Tell whether all threads use one object that keeps the pickler it works for."""
    return isinstance(handler, handlers.BaseHandler)


def _copy_for(shared_handler: Any, context: Any) -> Any:
    return copy.copy(shared_handler)(context)


def _register_pandas_handlers() -> None:
    import pandas as pd  # type: ignore[import-untyped]
    from jsonpickle.ext import pandas as extension

    with _registration:
        for name, handler_name in _PANDAS_HANDLERS.items():
            pandas_class = getattr(pd, name)
            if handlers.get(pandas_class) is None:
                handlers.register(pandas_class, getattr(extension, handler_name), base=True)
        _registered.add("pandas")
