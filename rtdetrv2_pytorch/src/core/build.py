"""Check YAML sections against the signatures of components, and build the components.

`check` compares keys and values without side effects; `construct` checks and builds.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import regex
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

from ..misc.errors import ConfigError
from ..misc.ranges import NonNegativeFloat
from ..misc.text import counted
from .catalog import ALIASES, COMPONENTS, FROM_THE_RUN, ROLES, V1_COMPONENTS

_MAX_DEPTH = 20  # of components inside each other


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a mistyped word, with at most three known words."""
    if word in V1_COMPONENTS:
        return "; RT-DETR v1 is not supported, use a configuration of RT-DETRv2"
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=3, cutoff=0.75)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    nearest = difflib.get_close_matches(str(word), known, n=3, cutoff=0.0)
    return f"; the nearest are {', '.join(nearest)}"


@cache
def parameters_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor by name."""
    return dict(inspect.signature(factory).parameters)


@cache
def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory  # type: ignore[misc]
    return typing.get_type_hints(target, include_extras=True)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(hint, config=config)
    except PydanticUserError:  # types that define their own configuration, such as TypedDict
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return TypeAdapter(Any)


def convert(value: Any, hint: Any, at: str) -> Any:
    """Convert a YAML value to a type; "1e-4", a string in YAML, becomes a float.

    Args:
        value: the value.
        hint: type with an optional range, such as `PositiveFloat`.
        at: place of the value in the configuration, for error messages.

    Raises:
        ConfigError: if the value does not have this type or is out of range.
    """
    try:
        result = _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise ConfigError(_message(error.errors()[0], value, hint, at)) from None
    if isinstance(value, bool) and not isinstance(result, bool):
        raise ConfigError(f"{at} = {value!r}: give a number")
    return result


def _message(error: ErrorDetails, value: Any, hint: Any, at: str) -> str:
    """Name the place, the value and the reason of a validation error."""
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        dicts = [h for h in (hint, *typing.get_args(hint)) if is_typeddict(h)]
        known = [k for h in dicts for k in typing.get_type_hints(h)]
        return f"{at}: unknown key {key!r}{suggest(key, known)}"
    for part in error["loc"]:  # which also names the branches of unions
        if isinstance(value, Mapping) and part in value:
            at, value = f"{at}.{part}", value[part]
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            at, value = f"{at}[{part}]", value[part]
    reason = _remedy(error["msg"])
    if error["type"] == "tuple_type":
        hints = (hint, *typing.get_args(hint))
        items = next(typing.get_args(h) for h in hints if typing.get_origin(h) is tuple)
        size = f" of {counted(len(items), 'value')}" if Ellipsis not in items else ""
        reason = f"give a list{size}"
    elif error["type"] == "missing" and isinstance(value, list | tuple):
        reason = f"give more than {counted(len(value), 'value')}"
    return f"{at} = {value!r}: {reason}"


def _remedy(reason: str) -> str:
    """Return what to give instead, from pydantic's "Input should be ..."."""
    wanted = reason.removeprefix("Input should be ")
    if wanted == reason:
        return reason
    return f"give {'a number ' if wanted.startswith(('greater', 'less')) else ''}{wanted}"


def _is_description(value: Any) -> bool:
    """Return whether a value describes a component: its name, or {type: name, ...}."""
    return _has_type(value) or (isinstance(value, str) and ALIASES.get(value, value) in COMPONENTS)


def _has_type(value: Any) -> bool:
    return isinstance(value, Mapping) and "type" in value


@dataclass(frozen=True)
class _Described:
    """A described component with its section.

    Args:
        name: of the component.
        section: keys and values for its constructor.
        at: place of the description.
        inline: keys of the description; the others are from the top-level section.
    """

    name: str
    section: dict[str, Any]
    at: str
    inline: Collection[str] = ()

    def place(self, key: str = "") -> str:
        """Return the place of a key in the configuration."""
        if not key:
            return self.at if self.inline else self.name
        return f"{self.at if key in self.inline else self.name}.{key}"


def _components_for(role: str, kind: Any) -> tuple[str, ...]:
    """Return the components that a slot or parameter accepts.

    Args:
        role: its name.
        kind: its type; other types than classes accept all components.
    """
    if role in ROLES:
        return ROLES[role]
    if not inspect.isclass(kind) or kind is Any:
        return tuple(COMPONENTS)
    return tuple(name for name, each in COMPONENTS.items() if issubclass(_product(each), kind))


def _product(factory: Callable[..., Any]) -> type:
    """Return the class that a constructor or factory function makes."""
    made = factory if inspect.isclass(factory) else _hints(factory).get("return")
    return made if inspect.isclass(made) else object


def _required(factory: Callable[..., Any], key: str) -> str:
    if typing.get_origin(_hints(factory).get(key)) is Callable:
        return "is a Python function, which a configuration file cannot contain"
    return "is required"


class Sections:
    """The named sections of one configuration, from which components are built.

    Args:
        values: the merged configuration.
        shared: values that every component with a parameter of that name receives.
    """

    def __init__(self, values: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        self.values = values
        self.shared = shared

    def _resolve(self, description: Any, at: str) -> _Described:
        """Look up a component; keys in its description override those of its top-level section."""
        if isinstance(description, str):
            name, inline = description, {}
        elif isinstance(description, Mapping) and isinstance(description.get("type"), str):
            name = description["type"]
            inline = {k: v for k, v in description.items() if k != "type"}
        else:
            raise ConfigError(f"{at} = {description!r}: give a component's name, or {{type: name}}")
        name = ALIASES.get(name, name)
        if name not in COMPONENTS:
            raise ConfigError(f"{at}: unknown component {name!r}{suggest(name, COMPONENTS)}")
        section = self.values.get(name) or {}
        if not isinstance(section, Mapping):
            raise ConfigError(f"{name} = {section!r}: give its keys with their values")
        return _Described(name, {**section, **inline}, at, inline.keys())

    def check(
        self,
        description: Any,
        at: str,
        *,
        kind: Any = Any,
        given: Iterable[str] = (),
        above: Sequence[str] = (),
    ) -> None:
        """Check a described component and its parts without building anything.

        Args:
            description: a name, or {type: name, ...}.
            at: place of the description, for error messages.
            kind: type that the component must have.
            given: parameters that the caller of `construct` will pass.
            above: names of the components that contain this one.

        Raises:
            ConfigError: naming the first invalid key or value.
        """
        described = self._resolve(description, at)
        wanted = _components_for(at.rpartition(".")[2], kind)
        if described.name not in wanted:
            raise ConfigError(f"{at} = {described.name!r}: give {' or '.join(wanted)}")
        if len(above) > _MAX_DEPTH:
            raise ConfigError(f"{at} = {described.name!r}: contains itself; name another component")
        self._check(described, given=given, above=above)

    def check_section(self, name: str, section: Mapping[str, Any]) -> None:
        """Check the top-level section of a component; required parameters may be missing."""
        self._check(_Described(name, {**section}, name), is_complete=False)

    def _check(
        self,
        described: _Described,
        *,
        given: Iterable[str] = (),
        above: Sequence[str] = (),
        is_complete: bool = True,
    ) -> None:
        factory = COMPONENTS[ALIASES.get(described.name, described.name)]
        parameters = parameters_of(factory)
        for key in described.section:
            if key not in parameters:
                known = [p for p in parameters if p not in FROM_THE_RUN]
                place = described.at if key in described.inline else described.name
                raise ConfigError(f"{place}: unknown key {key!r}{suggest(key, known)}")
        for key, value in self._with_shared(parameters, described.section).items():
            hint = _hints(factory).get(key, Any)
            each = partial(self.check, kind=hint, above=(*above, described.name))
            self._convert(value, hint, described.place(key), each)
        if is_complete:
            present = {*described.section, *self.shared, *given, *FROM_THE_RUN}
            for key, parameter in parameters.items():
                if parameter.default is inspect.Parameter.empty and key not in present:
                    raise ConfigError(f"{described.place()}: {key!r} {_required(factory, key)}")

    @staticmethod
    def _convert(value: Any, hint: Any, at: str, each: Callable[[Any, str], Any]) -> Any:
        """Apply `each` to the components that a value describes; convert any other value."""
        if _is_description(value):
            return each(value, at)
        if isinstance(value, list) and value and all(_has_type(item) for item in value):
            return [each(item, f"{at}[{i}]") for i, item in enumerate(value)]
        return convert(value, hint, at)

    def parameter_rules(self, optimizer: Any, rules: Any) -> list[dict[str, Any]]:
        """Check the rules of `optimizer.params` and convert their values.

        Args:
            optimizer: description of the optimizer, whose options a rule may override.
            rules: list of {params: regular expression, option: value, ...}, or None.

        Raises:
            ConfigError: naming the first invalid rule.
        """
        if rules is None or optimizer is None:
            return []
        factory = COMPONENTS[self._resolve(optimizer, "optimizer").name]
        hints = {key: _hints(factory)[key] for key in parameters_of(factory)}
        hints |= {"params": str, "lr": NonNegativeFloat}  # 0 freezes the matching parameters
        if not isinstance(rules, list):
            raise ConfigError(f"optimizer.params = {rules!r}: give a list of {{params: ..., ...}}")
        return [_rule(rule, hints, f"optimizer.params[{i}]") for i, rule in enumerate(rules)]

    def construct(self, description: Any, at: str, **given: Any) -> Any:
        """Check and build a described component with its parts.

        Args:
            description: a name, or {type: name, ...}.
            at: place of the description, for error messages.
            **given: values of the run; ignored if the constructor lacks the parameter, overridden
                by the section.

        Raises:
            ConfigError: if the section is invalid, or its constructor raises a ValueError.
        """
        described = self._resolve(description, at)
        factory = COMPONENTS[described.name]
        parameters = parameters_of(factory)
        self._check(described, given=given)
        arguments = {k: v for k, v in given.items() if k in parameters}
        for key, value in self._with_shared(parameters, described.section).items():
            hint = _hints(factory).get(key, Any)
            arguments[key] = self._convert(value, hint, described.place(key), self.construct)
        try:
            return factory(**arguments)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{described.name}: {error}") from error

    def arguments(self, description: Any, at: str) -> tuple[str, dict[str, Any]]:
        """Return a component's name, and all its arguments with defaults; parts stay descriptions.

        Raises:
            ConfigError: if the section is invalid.
        """
        self.check(description, at)
        described = self._resolve(description, at)
        factory = COMPONENTS[described.name]
        parameters = parameters_of(factory)
        arguments = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
        for key, value in self._with_shared(parameters, described.section).items():
            hint = _hints(factory).get(key, Any)
            arguments[key] = self._convert(value, hint, described.place(key), lambda part, _: part)
        return described.name, arguments

    def _with_shared(self, parameters: Iterable[str], section: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section with the shared values, which take precedence."""
        return {**section, **{k: v for k, v in self.shared.items() if k in parameters}}

    def owners_of(self, key: str) -> list[str]:
        """Return the sections of this configuration that accept a key."""
        owners = []
        for at, section in self.values.items():
            name = str(section.get("type", at)) if isinstance(section, Mapping) else at
            factory = COMPONENTS.get(ALIASES.get(name, name))
            if factory and key in parameters_of(factory) and key not in FROM_THE_RUN:
                owners.append(at)
        return owners

    def conflicts(self) -> list[str]:
        """Return a message for each section value that a different shared value overrides."""
        found = []
        for name, section in self.values.items():
            if name in COMPONENTS and isinstance(section, Mapping):
                for key in parameters_of(COMPONENTS[name]):
                    own, shared = section.get(key), self.shared.get(key)
                    shared = list(shared) if isinstance(shared, tuple) else shared
                    if key in section and key in self.shared and shared != own:
                        found.append(
                            f"{name}.{key} = {own!r} is overridden by top-level {key} = {shared!r}"
                        )
        return found


def _rule(rule: Any, hints: Mapping[str, Any], at: str) -> dict[str, Any]:
    if not isinstance(rule, Mapping) or "params" not in rule:
        raise ConfigError(f"{at} = {rule!r}: give a mapping with 'params', a regular expression")
    for key in rule:
        if key not in hints:
            raise ConfigError(f"{at}: unknown key {key!r}{suggest(str(key), hints)}")
    converted = {key: convert(value, hints[key], f"{at}.{key}") for key, value in rule.items()}
    try:
        regex.compile(converted["params"])
    except regex.error as error:
        raise ConfigError(
            f"{at}.params = {rule['params']!r}: not a regular expression ({error}); correct it"
        ) from error
    return converted
