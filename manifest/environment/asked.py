"""Variables that a program asked for: what is kept of each, and which a replay is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from manifest.canonical import ABSENT, Json, plain, redacted
from manifest.environment import variables
from manifest.environment.redaction import redact_value

_LONGEST: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
# What a name says of its value: never kept, or kept only if it is a small number.
_SECRET: Final = re.compile(
    r"SECRET|PASSW|PASSPHRASE|PGPASS|PASS(?:_|$)|PWD|CRED|JWT|DSN|COOKIE|PRIVATE|(?:^|_)PIN(?:_|$)"
)
_SUSPECT: Final = re.compile(
    r"TOKEN|KEY|AUTH|SESSION|CERT|SIGNATURE|SIGNING|SALT|WEBHOOK|ACCESS|CONN_?STR|CONNECTION"
)
_TRIVIAL: Final = re.compile(r"[01]?|true|false|yes|no|on|off|none", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[-+]?\d[\d_.]{0,6}(?:[eE][-+]?\d{1,3})?")
# They say who sits where, at what terminal.
_OF_THE_PLACE: Final = re.compile(
    r"(?:OLD)?PWD|SHELL|SHLVL|TERM\w*|COLUMNS|LINES|DISPLAY|USER|LOGNAME|HOSTNAME|MAIL|TMPDIR|TMP|TEMP"
    r"|_"
)
# Read by an interpreter, a shell, a linker, a C library or a tool that a program may start.
_NOT_RESTORED: Final = re.compile(
    r"(?:LD|DYLD|PYTHON|PERL|RUBY|NODE|JAVA|JDK|GIT|SSH|SVN|HG|BASH|ZSH|LESS|MALLOC|GLIBC|GCONV"
    r"|MANIFEST|PIP|UV|CONDA|VIRTUAL|XDG|DBUS|QT|GTK|GIO|VK|SUDO|DOCKER|KUBE|MAKE|CMAKE|NINJA)\w*"
    r"|\w*PATH|(?:\w*_)?(?:PATHS|HOME|PREFIX|LIBS?|LIBRARY|LIBRARIES|PLUGINS?|PRELOAD|CMD|COMMAND"
    r"|COMPILER|CC|CXX|HOOKS?|SOCKET|PROXY|OPTIONS|OPTS|FLAGS)"
    r"|ENV|IFS|PS[0-4]|PROMPT_COMMAND|EDITOR|VISUAL|PAGER|BROWSER|RES_OPTIONS|HOSTALIASES"
)
# Neither an absolute place nor one above: a name such as "org/model" is neither.
_SAFE_VALUE: Final = re.compile(r"(?![/~])(?!.*(?:^|/)\.\.?(?:/|$))(?!.*://)[^\x00-\x1f\x7f\\]*")


def is_kept(name: str) -> bool:
    """Whether a look-up of this name is recorded: not if the variable is recorded anyway."""
    return (
        _NAME.fullmatch(name) is not None
        and not variables.is_recorded(name)
        and not name.startswith("MANIFEST_")
        and _OF_THE_PLACE.fullmatch(name) is None
    )


def kept(name: str, value: str, salt: bytes) -> Json:
    """What is recorded of a value: itself, or a stand-in where it may be a secret."""
    if _TRIVIAL.fullmatch(value):
        return value
    upper = name.upper()
    is_secret = _SECRET.search(upper) or (_SUSPECT.search(upper) and not _NUMBER.fullmatch(value))
    # What an address holds cannot be told; it is never given to a replay either.
    if is_secret or "://" in value or len(value) > _LONGEST:
        return redacted(plain(value), salt)
    return redact_value(name, value, salt)


def restore_asked(recorded: Mapping[str, Json], environ: Mapping[str, str]) -> dict[str, str]:
    """Give a child what a recorded program asked for, over the environment that it would have.

    Args:
        recorded: The ``environment`` section of an untrusted manifest, of which only
            ``asked.NAME`` is read.
        environ: The environment of the child so far.
    """
    child = dict(environ)
    for name, value in _asked(recorded).items():
        if not is_restorable(name):
            continue
        if value == ABSENT:
            child.pop(name, None)
        elif isinstance(value, str) and _is_safe(value):
            child[name] = value
    return child


def not_restored(recorded: Mapping[str, Json], environ: Mapping[str, str]) -> dict[str, str]:
    """Say of each variable that a replay would find otherwise, and cannot be given, why."""
    child = restore_asked(recorded, environ)
    reasons = {}
    for name, value in sorted(_asked(recorded).items()):
        if not _NAME.fullmatch(name) or variables.is_recorded(name):
            continue
        if not isinstance(value, str) and value != ABSENT:
            if name not in child:
                reasons[name] = "it was set to what may be a secret, and was not stored"
        elif child.get(name) != (None if value == ABSENT else value):
            was = "not set" if value == ABSENT else repr(value[:80])
            reasons[name] = f"it was {was}, and a manifest may not set it"
    return reasons


def is_restorable(name: str) -> bool:
    """Whether a replay may take this variable from a manifest."""
    if not _NAME.fullmatch(name) or variables.is_recorded(name):
        return False  # those on the list are restored by their own rules
    upper = name.upper()
    return not (_SECRET.search(upper) or _NOT_RESTORED.fullmatch(upper))


def _asked(recorded: Mapping[str, Json]) -> dict[str, Json]:
    return {
        key.removeprefix("asked."): value
        for key, value in recorded.items()
        if key.startswith("asked.")
    }


def _is_safe(value: str) -> bool:
    return len(value) <= _LONGEST and _SAFE_VALUE.fullmatch(value) is not None
