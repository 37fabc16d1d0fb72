"""jsonpickle, made strict and safe for threads; imported when json is first needed."""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
import json
import pickle
import queue
import re
import sys
import threading
import types
import warnings
from collections.abc import Callable, Set
from functools import cache
from itertools import filterfalse
from typing import Any, Final, NoReturn, cast

from jsonpickle import handlers, tags, util  # type: ignore[import-untyped]
from jsonpickle.pickler import Pickler  # type: ignore[import-untyped]
from jsonpickle.unpickler import Unpickler, loadclass  # type: ignore[import-untyped]

from persidict.codecs.json_forms import Call, exact_form, is_foreign, native_base
from persidict.exceptions import LossyValueWarning

_MEANINGFUL_KEYS: Final = ("py/", tags.JSON_KEY)
"""How strings begin that jsonpickle would take for its own when they are keys."""

_NAMED_REFERENCE: Final = re.compile(rf'"(?:{tags.TYPE}|{tags.FUNCTION})"\s*:\s*"([^"\\]+)"')

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

_RENEWED: Final = (type(threading.Lock()), queue.Queue)
"""Classes whose objects jsonpickle replaces by new ones."""

_registration: Final = threading.RLock()
_registered: Final[set[str]] = set()


def dumps(value: Any) -> str:
    """Write a value as JSON text."""
    _register_handlers()
    pickler = _StrictPickler()
    flat = pickler.flatten(value)
    text = json.dumps(flat, indent=4)
    for name in set(_NAMED_REFERENCE.findall(text)):
        if loadclass(name) is None and handlers.get(name) is None:
            raise TypeError(f"json cannot hold a {name}, which cannot be imported")
    if pickler.husk is value and value is not None:
        raise TypeError(f"json cannot hold a {_name_of(type(value))}: nothing would come back")
    if pickler.lossy:
        _warn(
            f"json cannot hold all of {', '.join(sorted(pickler.lossy))}:"
            " what is read back will differ there"
        )
    return text


def loads(text: str) -> Any:
    """Read a value from JSON text."""
    if not sys.modules.keys() >= {"numpy", "pandas"}:
        # The handler must be there before the class is met: its module comes first
        for name in set(_IMPORTED_NAME.findall(text)):
            loadclass(name)
    _register_handlers()
    return _StrictUnpickler().restore(json.loads(text))


def _comes_back(value: Any) -> Any:
    """Return what jsonpickle's own form gives back."""
    flat = _StrictPickler(own_forms_only=True).flatten(value)
    return _StrictUnpickler().restore(json.loads(json.dumps(flat)))


def _warn(message: str) -> None:
    """Warn about a call into this package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("persidict."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, LossyValueWarning, stacklevel=depth)


def _name_of(value_class: type) -> str:
    return f"{value_class.__module__}.{value_class.__qualname__}"


class _StandardJson:
    """The standard library's json, whatever else jsonpickle finds installed."""

    @staticmethod
    def encode(obj: Any, **options: Any) -> str:
        return json.dumps(obj, **options)

    @staticmethod
    def decode(text: str) -> Any:
        return json.loads(text)


class _StrictPickler(Pickler):  # type: ignore[misc]
    """Keeps what jsonpickle would leave out, and tells what it cannot keep.

    Attributes:
        lossy: The names of the classes whose objects will not come back as they are.
        husk: The last object of which nothing but its class is written, None if none is.
    """

    def __init__(self, *, own_forms_only: bool = False) -> None:
        super().__init__(keys=True, backend=_StandardJson)
        self.lossy: set[str] = set()
        self.husk: Any = None
        self._own_forms_only = own_forms_only
        self._keeps_order = False
        # asked once for each class and value, as a program may register handlers at any time
        self._is_left_to_jsonpickle = _asked_once(_has_handler_of_the_program)
        self._has_only_attributes = _asked_once(_has_only_attributes)
        self._can_be_imported = cache(_can_be_imported)

    def _pickle_warning(self, obj: Any) -> NoReturn:
        raise TypeError(f"json cannot hold {obj!r}")

    def _lose(self, obj: Any, *, wholly: bool) -> None:
        self.lossy.add(_name_of(type(obj)))
        if wholly:
            self.husk = obj

    # ------------------------------------------------------------------ objects

    def _flatten_function(self, obj: Any) -> Any:
        if isinstance(obj, types.BuiltinFunctionType) and not isinstance(
            obj.__self__, (types.ModuleType, type, types.NoneType)
        ):
            self._pickle_warning(obj)  # a method, whose object would be left behind
        return super()._flatten_function(obj)

    def _flatten_obj_instance(self, obj: Any) -> Any:
        if obj is Ellipsis or obj is NotImplemented:
            return {tags.FUNCTION: f"builtins.{obj!r}"}
        if isinstance(obj, types.MethodType):
            self._pickle_warning(obj)
        if self._own_forms_only or self._is_left_to_jsonpickle(type(obj)):
            return super()._flatten_obj_instance(obj)
        if isinstance(obj, _RENEWED):
            self._lose(obj, wholly=True)
            return super()._flatten_obj_instance(obj)
        try:
            form = exact_form(obj, _comes_back)
        except Exception:
            if not is_foreign(type(obj)):
                raise
            return self._husk_of(obj)
        if form is not None:
            return self._flat_call(form)
        if isinstance(obj, BaseException) and not _constructor_takes_args(obj):
            _, arguments, *state = cast("tuple[Any, ...]", obj.__reduce__())
            made = [tags.NEWOBJ, (type(obj), *arguments), *state]
            return {tags.REDUCE: [self._flatten(part) for part in made]}
        if self._has_only_attributes(type(obj)):
            return self._flatten_attributes(obj)
        flat = super()._flatten_obj_instance(obj)
        if isinstance(flat, dict) and not self._can_be_imported(flat.get(tags.OBJECT)):
            self._lose(obj, wholly=flat.keys() == {tags.OBJECT})
        return flat

    def _flat_call(self, call: Call) -> dict[str, Any]:
        function = (
            {tags.FUNCTION: "pickle.loads"}  # its own name has another module
            if call.function is pickle.loads
            else self._flatten(call.function)
        )
        return {tags.REDUCE: [function, self._flatten(call.arguments)]}

    def _flatten_attributes(self, obj: Any) -> Any:
        """Write an object that neither jsonpickle nor its class has a way to write."""
        if native_base(type(obj)) is not object and not hasattr(obj, "__getnewargs__"):
            if util.is_iterator(obj):  # which jsonpickle would use up
                raise TypeError(f"json cannot hold {obj!r}: reading it would use it up")
            if not isinstance(obj, (dict, list, set)):
                return self._husk_of(obj)
        slots = _slots(type(obj))
        # jsonpickle writes slots that a class and its base both name twice
        if util.is_iterator(obj) or (
            slots and (hasattr(obj, "__dict__") or len(slots) > len(set(slots)))
        ):
            flat = {tags.OBJECT: util.importable_name(type(obj))}
            state: Any = cast("tuple[Any, ...]", object.__reduce_ex__(obj, 2))[2]
            if isinstance(state, tuple):
                flat[tags.STATE] = self._flatten(state)
            elif state:
                self._flatten_dict_obj(state, flat)
        else:
            flat = super()._flatten_obj_instance(obj)
        if not self._can_be_imported(flat.get(tags.OBJECT)):
            self._lose(obj, wholly=flat.keys() == {tags.OBJECT})
        return flat

    def _husk_of(self, obj: Any) -> dict[str, Any]:
        self._lose(obj, wholly=True)
        return {tags.OBJECT: util.importable_name(type(obj))}

    # ------------------------------------------------------------------ dicts

    def _flatten_dict_obj(
        self, obj: Any, data: dict[str, Any] | None = None, exclude: Any = ()
    ) -> Any:
        """Write a dict in its order.

        jsonpickle reads the keys of a dict that are strings first, but those of a subclass
        as they come: so the objects in it have to be numbered.
        """
        outer, self._keeps_order = self._keeps_order, type(obj) is not dict
        try:
            data = super()._flatten_dict_obj(obj, data, exclude)
        finally:
            self._keeps_order = outer
        assert data is not None
        factory = getattr(obj, "default_factory", None)
        if callable(factory) and not isinstance(factory, type):
            self._lose(obj, wholly=False)
        if type(obj) is dict:
            are_plain = [_is_plain_key(key) for key in obj]
            if are_plain != sorted(are_plain, reverse=True):
                escaped = iter([name for name in data if name.startswith(tags.JSON_KEY)])
                for key, is_plain in zip(obj, are_plain, strict=True):
                    name = key if is_plain else next(escaped)
                    data[name] = data.pop(name)
        return data

    def _flatten_key_value_pair(self, k: str, v: Any, data: dict[str, Any]) -> dict[str, Any]:
        data[k] = self._flatten(v)
        return data

    def _flatten_string_key_value_pair(
        self, k: Any, v: Any, data: dict[str, Any]
    ) -> dict[str, Any]:
        if _is_plain_key(k):
            return self._flatten_key_value_pair(k, v, data)
        if self._keeps_order:
            return self._flatten_key_value_pair(self._escape_key(k), v, data)
        return data

    def _flatten_non_string_key_value_pair(
        self, k: Any, v: Any, data: dict[str, Any]
    ) -> dict[str, Any]:
        if _is_plain_key(k) or self._keeps_order:
            return data
        return self._flatten_key_value_pair(self._escape_key(k), v, data)


def _asked_once(question: Callable[[type], bool]) -> Callable[[type], bool]:
    return cast("Callable[[type], bool]", cache(question))


def _has_handler_of_the_program(kind: type) -> bool:
    """Tell whether the program says itself how objects of a class are written."""
    handler: Any = handlers.get(kind, handlers.get(util.importable_name(kind)))
    if isinstance(handler, functools.partial):
        handler = type(handler.args[0])
    return handler is not None and not handler.__module__.startswith("jsonpickle.")


def _has_only_attributes(kind: Any) -> bool:
    """Tell whether objects are written by their attributes, for lack of anything else."""
    return (
        kind.__getstate__ is object.__getstate__
        and kind.__reduce__ is object.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and handlers.get(kind) is None
        and not issubclass(kind, types.ModuleType)
    )


def _constructor_takes_args(error: BaseException) -> bool:
    """Tell whether an exception can be made anew as `BaseException.__reduce__` has it."""
    kind = type(error)
    if kind.__reduce__ is not BaseException.__reduce__ or not isinstance(
        kind.__init__, types.FunctionType
    ):
        return True
    try:
        inspect.signature(kind).bind(*error.args)
    except (TypeError, ValueError):
        return False
    return True


def _slots(kind: type) -> list[str]:
    names: list[str] = copyreg._slotnames(kind)  # type: ignore[attr-defined]
    return names


def _can_be_imported(name: str | None) -> bool:
    return name is None or loadclass(name) is not None or handlers.get(name) is not None


def _is_hidden(name: str) -> bool:
    """Tell whether a class has a name that no import ever finds."""
    return "<locals>" in name or (name.startswith("builtins.") and loadclass(name) is None)


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and not key.startswith(_MEANINGFUL_KEYS)


class _StrictUnpickler(Unpickler):  # type: ignore[misc]
    """Raises where jsonpickle would hand out something else than what was stored."""

    def __init__(self) -> None:
        super().__init__(keys=True, backend=_StandardJson, on_missing=_refuse)

    def _restore_dict(self, obj: dict[str, Any]) -> dict[Any, Any]:
        restored: dict[Any, Any] = super()._restore_dict(obj)
        are_escaped = [name.startswith(tags.JSON_KEY) for name in obj]
        if are_escaped != sorted(are_escaped) and len(restored) == len(obj):
            items = list(restored.items())
            plain = iter(items[: are_escaped.count(False)])
            escaped = iter(items[are_escaped.count(False) :])
            restored.clear()
            restored.update(next(escaped if is_escaped else plain) for is_escaped in are_escaped)
        return restored

    def _restore_type(self, obj: Any) -> Any:
        found = super()._restore_type(obj)
        return _found(None if found is obj else found, obj[tags.TYPE])

    def _restore_function(self, obj: Any) -> Any:
        return _found(super()._restore_function(obj), obj[tags.FUNCTION])

    def _restore_module(self, obj: Any) -> Any:
        return _found(super()._restore_module(obj), obj[tags.MODULE])

    def _restore_object(self, obj: Any) -> Any:
        if self._is_husk(obj[tags.OBJECT], obj.keys()):
            husk: dict[str, Any] = self._mkref({})
            for name, value in obj.items():
                husk[name] = value if name == tags.OBJECT else self._restore(value)
            return husk
        try:
            return super()._restore_object(obj)
        except TypeError as error:  # which jsonpickle takes for an empty tuple, set or list
            raise ValueError(f"an object cannot be rebuilt: {error}") from error

    def _restore_reduce(self, obj: Any) -> Any:
        try:
            return super()._restore_reduce(obj)
        except TypeError as error:
            raise ValueError(f"an object cannot be rebuilt: {error}") from error

    def _is_husk(self, name: str, content: Set[str]) -> bool:
        """Tell whether what is stored of an object is read as a dict: its class has no use."""
        if handlers.get(name) is not None:
            return False
        if _is_hidden(name):
            return True
        found = loadclass(name)
        if (
            not isinstance(found, type)
            or handlers.get(found) is not None
            or content & {tags.NEWARGS, tags.NEWARGSEX, tags.INITARGS, tags.STATE}
        ):
            return False
        return is_foreign(found) or (content == {tags.OBJECT} and not _can_be_blank(found))


def _can_be_blank(kind: Any) -> bool:
    try:
        kind.__new__(kind)
    except TypeError:
        return False
    return True


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

    ours = {getattr(pd, name): handler for name, handler in _PANDAS_HANDLERS.items()}
    with _registration:
        for pandas_class in list(filterfalse(handlers.get, ours)):
            handlers.register(pandas_class, getattr(extension, ours[pandas_class]), base=True)
        _registered.add("pandas")
