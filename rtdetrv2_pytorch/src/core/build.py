"""Sections of YAML against the signatures of what they construct.

`check` compares keys and values and touches nothing; `construct` checks and builds.
"""

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from ..misc.errors import ConfigError
from .catalog import ALIASES, COMPONENTS, FROM_THE_RUN

Section = Mapping[str, Any]


def suggest(word: str, known: Iterable[str]) -> str:
    """Hint for a mistyped word: "; did you mean ...?" or what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def component(name: str, at: str) -> Callable[..., Any]:
    """The constructor of a name.

    Raises:
        ConfigError: if there is none.
    """
    name = ALIASES.get(name, name)
    if name not in COMPONENTS:
        raise ConfigError(f"{at}: unknown component {name!r}{suggest(name, COMPONENTS)}")
    return COMPONENTS[name]


@cache
def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(factory).parameters)


@cache
def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory  # type: ignore[misc]
    return typing.get_type_hints(target)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # types with a configuration of their own, such as TypedDict
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return TypeAdapter(Any)


def convert(value: Any, hint: Any, at: str) -> Any:
    """Bring a YAML value to a type: "1e-4", a string to YAML, becomes the number it is.

    Raises:
        ConfigError: if it is of another type.
    """
    try:
        result = _adapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f".{p}" for p in first["loc"] if isinstance(p, str) and "[" not in p)
        where = f"{at}{place}"
        if first["type"] == "extra_forbidden":
            key = first["loc"][-1]
            known = [k for h in (hint, *typing.get_args(hint)) for k in _typed_keys(h)]
            raise ConfigError(f"{at}: unknown key {key!r}{suggest(str(key), known)}") from None
        raise ConfigError(f"{where} = {first['input']!r}: {first['msg']}") from None
    if isinstance(value, bool) and not isinstance(result, bool):
        raise ConfigError(f"{at} = {value!r}: a number is needed here")
    return result


def _typed_keys(hint: Any) -> Iterable[str]:
    """The keys of a TypedDict; of another type none."""
    return typing.get_type_hints(hint) if is_typeddict(hint) else ()


def is_nested(value: Any) -> bool:
    """Whether a value describes a component: a name of one, or {type: name, ...}."""
    if isinstance(value, Mapping):
        return "type" in value
    return isinstance(value, str) and ALIASES.get(value, value) in COMPONENTS


def is_nested_list(value: Any) -> bool:
    """Whether a value is a list of {type: name, ...}."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, Mapping) and "type" in item for item in value)
    )


class Sections:
    """The named sections of one configuration, from which components are built.

    Args:
        values: the merged configuration.
        shared: values that every component with a parameter of that name receives.
    """

    def __init__(self, values: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        self.values = values
        self.shared = shared

    def resolve(self, description: Any, at: str) -> tuple[str, dict[str, Any]]:
        """Name and section of a described component.

        Args:
            description: a name, whose section is at the top level, or {type: name, ...}, whose
                own keys come on top of that section.
            at: where it stands, for messages.
        """
        if isinstance(description, str):
            name, own = description, {}
        elif isinstance(description, Mapping) and isinstance(description.get("type"), str):
            name = description["type"]
            own = {k: v for k, v in description.items() if k != "type"}
        else:
            raise ConfigError(f"{at} = {description!r}: give a component's name, or {{type: name}}")
        component(name, at)
        name = ALIASES.get(name, name)
        section = self.values.get(name) or {}
        if not isinstance(section, Mapping):
            raise ConfigError(f"{name} = {section!r}: give its keys with their values")
        return name, {**section, **own}

    def check(self, description: Any, at: str, *, given: Iterable[str] = ()) -> None:
        """Check a described component and all inside it, without building anything.

        Args:
            description: see `resolve`.
            at: where it stands, for messages.
            given: parameters that will be passed beside the section.

        Raises:
            ConfigError: naming the first key or value that is wrong.
        """
        name, section = self.resolve(description, at)
        self.check_section(name, section, given=given)

    def check_section(
        self, name: str, section: Section, *, given: Iterable[str] = (), complete: bool = True
    ) -> None:
        """Check one section; `complete` also demands the parameters without default."""
        factory = component(name, name)
        parameters = _parameters(factory)
        for key in section:
            if key not in parameters:
                known = [p for p in parameters if p not in FROM_THE_RUN]
                raise ConfigError(f"{name}: unknown key {key!r}{suggest(key, known)}")
        for key, value in self._with_shared(parameters, section).items():
            self._check_value(value, _hints(factory).get(key, Any), f"{name}.{key}")
        if complete:
            present = {*section, *self.shared, *given, *FROM_THE_RUN}
            for key, parameter in parameters.items():
                if parameter.default is inspect.Parameter.empty and key not in present:
                    raise ConfigError(f"{name}: {key!r} is missing; it has no default")

    def _check_value(self, value: Any, hint: Any, at: str) -> None:
        if is_nested(value):
            self.check(value, at)
        elif is_nested_list(value):
            for i, item in enumerate(value):
                self.check(item, f"{at}[{i}]")
        else:
            convert(value, hint, at)

    def parameter_rules(self, optimizer: Any, rules: Any) -> list[dict[str, Any]]:
        """Check the rules of `optimizer.params`, and bring their values to their types.

        Args:
            optimizer: description of the optimizer, whose options a rule may change.
            rules: list of {params: regular expression, option: value, ...}, or None.

        Raises:
            ConfigError: naming the first rule that is wrong.
        """
        if rules is None or optimizer is None:
            return []
        factory = component(self.resolve(optimizer, "optimizer")[0], "optimizer")
        hints = {key: _hints(factory)[key] for key in _parameters(factory)} | {"params": str}
        if not isinstance(rules, list):
            raise ConfigError(f"optimizer.params = {rules!r}: give a list of {{params: ..., ...}}")
        return [_rule(rule, hints, f"optimizer.params[{i}]") for i, rule in enumerate(rules)]

    def construct(self, description: Any, at: str, **given: Any) -> Any:
        """Check and build a described component, with all inside it.

        Args:
            description: see `resolve`.
            at: where it stands, for messages.
            **given: what the run provides; a parameter that the constructor does not have is left
                out, and a value of the section wins.

        Raises:
            ConfigError: if something is wrong with the section, or its constructor refuses it.
        """
        name, section = self.resolve(description, at)
        factory = component(name, at)
        parameters = _parameters(factory)
        self.check_section(name, section, given=given)
        arguments = {k: v for k, v in given.items() if k in parameters}
        for key, value in self._with_shared(parameters, section).items():
            hint = _hints(factory).get(key, Any)
            arguments[key] = self._build_value(value, hint, f"{name}.{key}")
        try:
            return factory(**arguments)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error

    def _build_value(self, value: Any, hint: Any, at: str) -> Any:
        if is_nested(value):
            return self.construct(value, at)
        if is_nested_list(value):
            return [self.construct(item, f"{at}[{i}]") for i, item in enumerate(value)]
        return convert(value, hint, at)

    def _with_shared(self, parameters: Iterable[str], section: Section) -> dict[str, Any]:
        """The section with the shared values it receives; those win."""
        return {**section, **{k: v for k, v in self.shared.items() if k in parameters}}

    def owners_of(self, key: str) -> list[str]:
        """The sections of this configuration in which this key may stand."""
        owners = []
        for at, section in self.values.items():
            name = str(section.get("type", at)) if isinstance(section, Mapping) else at
            factory = COMPONENTS.get(ALIASES.get(name, name))
            if factory and key in _parameters(factory) and key not in FROM_THE_RUN:
                owners.append(at)
        return owners

    def conflicts(self) -> list[str]:
        """Sections whose own value differs from the shared one that overrules it."""
        found = []
        for name, section in self.values.items():
            if name in COMPONENTS and isinstance(section, Mapping):
                for key in _parameters(COMPONENTS[name]):
                    ours, theirs = section.get(key), self.shared.get(key)
                    if key in section and key in self.shared and _as_list(theirs) != ours:
                        found.append(
                            f"{name}.{key} = {ours!r} is overruled by top-level {key} = {theirs!r}"
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
        re.compile(converted["params"])
    except re.error as error:
        raise ConfigError(
            f"{at}.params = {rule['params']!r}: not a regular expression ({error})"
        ) from error
    return converted


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
