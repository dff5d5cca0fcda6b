"""Setting: the description of one field of a request, and the check that follows from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from framewake.errors import InputError, nearest

# Short names of number types, as other programs write them.
SPELLINGS = (("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"))

Kind = Literal["text", "path", "choice", "integer", "number", "switch", "texts"]


@dataclass(frozen=True)
class Setting:
    """What a command line, a page or a document needs to know about one field of ``Request``.

    ``is_optional``: None is allowed, and ``unset`` says in words what is done then. ``spellings``: other names of
    choices, each with the one that it stands for.
    """

    kind: Kind
    help: str
    flag: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    is_optional: bool = False
    unset: str = ""
    spellings: tuple[tuple[str, str], ...] = ()

    def standard(self, value: Any) -> Any:
        """The value under its own name."""
        return next((name for spelling, name in self.spellings if value == spelling), value)


def whole(default: int | None, flag: str, text: str, span: tuple[int, int], *, unset: str = "") -> Any:
    """A field of a dataclass for a whole number; like all of them, it is optional where its default is None."""
    return _field(default, Setting("integer", text, flag, *span, unset=unset))


def number(default: float | None, flag: str, text: str, span: tuple[float, float], *, unset: str = "") -> Any:
    """A field for a number."""
    return _field(default, Setting("number", text, flag, *span, unset=unset))


def choice(
    default: str | None,
    flag: str,
    text: str,
    choices: tuple[str, ...],
    *,
    spellings: tuple[tuple[str, str], ...] = (),
    unset: str = "",
) -> Any:
    """A field for one of several words."""
    return _field(default, Setting("choice", text, flag, choices=choices, spellings=spellings, unset=unset))


def plain(default: Any, kind: Kind, flag: str, text: str, *, unset: str = "") -> Any:
    """A field of a kind that has no range."""
    return _field(default, Setting(kind, text, flag, unset=unset))


def _field(default: Any, setting: Setting) -> Any:
    described = dataclasses.replace(setting, is_optional=default is None)
    return dataclasses.field(default=default, metadata={"setting": described})


def check_setting(name: str, value: Any, setting: Setting) -> None:
    """Nothing when the value is usable.

    Raises: InputError that says what the value was and what it may be.
    """
    _CHECKS[setting.kind](name, value, setting)


def _check_text(name: str, value: Any, setting: Setting) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}: expected text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        way = "rename the file" if setting.kind == "path" else "write it again in UTF-8, or set LC_ALL=C.UTF-8"
        raise InputError(f"{name} holds characters that are not valid text: {way}.") from error
    if "\0" in value:
        raise InputError(f"{name} holds a zero byte: remove it.")


def _check_texts(name: str, value: Any, setting: Setting) -> None:
    if not isinstance(value, tuple):
        raise InputError(f"{name} is {shown(value)}: expected a list of texts.")
    for text in value:
        _check_text(name, text, setting)


def _check_choice(name: str, value: Any, setting: Setting) -> None:
    choices = setting.choices or ()
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise InputError(f"{name} is {shown(value)}: choose one of {', '.join(choices)}.{hint}")


def _check_integer(name: str, value: Any, setting: Setting) -> None:
    if type(value) is not int:
        raise InputError(f"{name} is {shown(value)}: expected a whole number{_range(setting)}.")
    _check_range(name, value, setting)


def _check_number(name: str, value: Any, setting: Setting) -> None:
    if type(value) not in (int, float) or (type(value) is float and not math.isfinite(value)):
        raise InputError(f"{name} is {shown(value)}: expected a number{_range(setting)}.")
    _check_range(name, value, setting)


def _check_switch(name: str, value: Any, setting: Setting) -> None:
    if type(value) is not bool:
        raise InputError(f"{name} is {shown(value)}: expected true or false.")


def _check_range(name: str, value: float, setting: Setting) -> None:
    if (setting.minimum is not None and value < setting.minimum) or (
        setting.maximum is not None and value > setting.maximum
    ):
        raise InputError(f"{name} is {shown(value)}: expected a number{_range(setting)}.")


def _range(setting: Setting) -> str:
    if setting.minimum is None:
        return ""
    if setting.maximum is None:
        return f" of {_plain(setting.minimum)} or more"
    return f" from {_plain(setting.minimum)} to {_plain(setting.maximum)}"


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def shown(value: Any) -> str:
    """A value as a message shows it: short, whatever was handed in."""
    # str() of an integer beyond some thousand digits is refused by Python itself.
    if type(value) is int and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_CHECKS = {
    "text": _check_text,
    "path": _check_text,
    "choice": _check_choice,
    "integer": _check_integer,
    "number": _check_number,
    "switch": _check_switch,
    "texts": _check_texts,
}
