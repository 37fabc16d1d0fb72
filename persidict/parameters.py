"""What has parameters: mixinforge's mixins as bases, loaded only when somebody wants them.

Loading mixinforge takes longer than loading the rest of this package. Its classes become
bases of ours as soon as it is loaded, by whomever: nobody can ask for
``isinstance(d, ParameterizableMixin)`` before. What the mixins bring along loads it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from mixinforge import JsonSerializedObject, ParameterizableMixin, SingletonMixin

_BORROWED = (
    "clone",
    "get_default_params",
    "get_default_jsparams",
    "essential_param_names",
    "auxiliary_param_names",
    "get_essential_params",
    "get_auxiliary_params",
    "_extend_parent_params",
)
"""What ParameterizableMixin brings along and nothing here replaces."""


class Parameters(dict[str, Any]):
    """Parameters among which are classes, for which mixinforge's JSON has no notation.

    A dict like any other, which `mixinforge.dumpjs` can write all the same. Copies and pickles
    are plain dicts.
    """

    def get_params(self) -> dict[str, Any]:
        """Return the parameters with a stand-in for each class, for mixinforge."""
        return cast("dict[str, Any]", portable(dict(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class ClassByName:
    """What stands for a class in mixinforge's JSON; making one from a name gives the class."""

    def __new__(cls, *, module: str, qualname: str) -> Any:
        """Return the class that has this name."""
        from importlib import import_module

        found: Any = import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
        return found

    @classmethod
    def of(cls, named: type) -> ClassByName:
        """Return the stand-in of a class.

        Raises:
            TypeError: No import finds the class.
        """
        params = {"module": named.__module__, "qualname": named.__qualname__}
        try:
            found = cls(**params)
        except (ImportError, AttributeError):
            found = None
        if found is not named:
            raise TypeError(f"{named!r} cannot be written as JSON: it cannot be imported")
        stand_in = object.__new__(cls)
        stand_in._params = params
        return stand_in

    _params: dict[str, str]

    def get_params(self) -> dict[str, str]:
        """Return what `ClassByName` is to be called with."""
        return self._params


def portable(params: Any) -> Any:
    """Put stand-ins in the place of the classes in (nested) parameters."""
    if isinstance(params, type):
        return ClassByName.of(params)
    if isinstance(params, dict):
        return {name: portable(value) for name, value in params.items()}
    if isinstance(params, (list, tuple)):
        return type(params)(map(portable, params))
    return params


def sorted_params(params: dict[str, Any]) -> dict[str, Any]:
    """Sort parameters by name, and make sure that mixinforge can write them."""
    by_name = {name: params[name] for name in sorted(params)}
    return Parameters(by_name) if _has_class(by_name) else by_name


def _has_class(params: Any) -> bool:
    if isinstance(params, dict):
        return any(map(_has_class, params.values()))
    return isinstance(params, type)


if TYPE_CHECKING:
    _Parameterizable = ParameterizableMixin
    _Singleton = SingletonMixin
else:

    class _Exchangeable:
        """A base in whose place another one can be put, which `object` does not allow."""

    class _Parameterizable(_Exchangeable):
        pass

    class _Singleton(_Exchangeable):
        pass


class Parameterizable(_Parameterizable):
    """Something that is made from parameters, and a `mixinforge.ParameterizableMixin`."""

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get_params()})"

    def get_jsparams(self) -> JsonSerializedObject:
        """Return the parameters as mixinforge's JSON."""
        return _as_json(self.get_params())

    def get_essential_jsparams(self) -> JsonSerializedObject:
        """Return the essential parameters as mixinforge's JSON."""
        return _as_json(self.get_essential_params())

    def get_auxiliary_jsparams(self) -> JsonSerializedObject:
        """Return the auxiliary parameters as mixinforge's JSON."""
        return _as_json(self.get_auxiliary_params())


class Singleton(Parameterizable, _Singleton):
    """A class with one instance, and a `mixinforge.SingletonMixin`."""

    _only: Any = None

    def __new__(cls) -> Self:
        """Return the instance."""
        if "_only" not in cls.__dict__:
            cls._only = object.__new__(cls)
        return cast("Self", cls._only)


def _as_json(params: dict[str, Any]) -> JsonSerializedObject:
    from mixinforge import dumpjs

    return dumpjs(portable({name: params[name] for name in sorted(params)}))


class _Borrowed:
    """An attribute of ParameterizableMixin, which is loaded when it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        from mixinforge import ParameterizableMixin

        return ParameterizableMixin.__dict__[self._name].__get__(instance, owner)


class _Watch:
    """A finder of modules that finds none, but notices when mixinforge is loaded."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "mixinforge":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, None)
            if spec is not None and spec.loader is not None:
                _call_after(spec.loader, self._adopt)
                return spec
        return None

    def _adopt(self, mixinforge: ModuleType) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _adopt(mixinforge)


def _call_after(loader: Any, act: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        act(module)

    loader.exec_module = exec_module


def _adopt(mixinforge: Any) -> None:
    """Make mixinforge's mixins bases of ours."""
    for name in _BORROWED:
        if name in Parameterizable.__dict__:
            delattr(Parameterizable, name)
    _Parameterizable.__bases__ = (mixinforge.ParameterizableMixin,)
    _Singleton.__bases__ = (mixinforge.SingletonMixin,)


if "mixinforge" in sys.modules:
    import mixinforge as _loaded

    _adopt(_loaded)
else:
    for _name in _BORROWED:
        setattr(Parameterizable, _name, _Borrowed(_name))
    sys.meta_path.insert(0, cast("Any", _Watch()))
