"""What is a secret, and what stands in for it.

A secret that is kept is a leak; a plain value that is not kept makes a run unreplayable. So a name
alone decides only where it can mean nothing else (``--password``); where it can (``--sort-key``,
``--eos-token``), the value decides too.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from manifest.canonical import Json, canonical_bytes, plain, redacted

# What a value with this name has to be to be kept: nothing, trivial, or plain.
_Suspicion = Literal["certain", "likely", "possible", "none"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SECRET_WORDS: Final = _set(
    """
    secret secrets password passwd passphrase apikey authtoken accesskey
    secretkey privatekey authorization sshpass apitoken accesstoken
    """
)
_OWNERS: Final = _set(
    """
    api access private encryption signing master service account storage
    auth bearer refresh session hf hub huggingface github gh gitlab
    wandb openai anthropic aws azure gcp google neptune comet slack
    mlflow clearml kaggle ngc pypi npm modelscope swanlab personal
    dagshub cohere replicate together mistral gemini deepseek telegram
    """
)
_PASS_OWNERS: Final = _set(
    """
    db user admin root smtp mysql pg postgres ssh redis mongo
    proxy ftp mail login database sudo
    """
)
# Before "token", pieces of text; before "key", names of fields.
_TEXT_WORDS: Final = _set(
    """
    eos bos pad mask unk sep cls special stop image audio video
    start end per max min num n add prompt class placeholder
    initializer trigger instance last first next separator register
    sort text label input output target caption data dict state
    model ckpt checkpoint metric monitor primary foreign cache group
    index row column field feature query batch loss json config
    id partition attention param weight dataset mask hot loader
    """
)
# The last word of a name that is about a secret, and is none.
_ABOUT: Final = _set(
    """
    file filename path dir name id env var url type length len
    size dim field column count num hash policy source method
    required enabled prompt min max provider index mode ttl expiry
    """
)
_SWITCHES: Final = _set(
    """
    no use with without has skip enable disable require ask is
    """
)

_SHAPES: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?<![A-Za-z0-9])(?:"
    r"A(?:KIA|SIA)[0-9A-Z]{16}(?![0-9A-Za-z])"
    r"|gh[opusr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[\w-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}"
    r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}|sk-(?:or-v1-)?[0-9a-f]{32,}"
    r"|[sr]k_(?:live|test)_[0-9A-Za-z]{16,}|xox[a-z]-[A-Za-z0-9-]{10,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}|dckr_pat_[\w-]{20,}"
    r"|dop_v1_[0-9a-f]{64}|SG\.[\w-]{20,}\.[\w-]{30,}|nvapi-[\w-]{40,}|r8_[A-Za-z0-9]{37}"
    r"|gsk_[A-Za-z0-9]{40,}|wandb_v\d_[\w-]{20,}"
    r"|(?:sig|[Xx]-(?:[Aa]mz|[Gg]oog)-[Ss]ignature|AccountKey|SharedAccessKey)"
    r"=[A-Za-z0-9%/+_=-]{20,}"
    r"|[Bb]earer\s+[\w.~+/-]{12,}|[Aa]uthorization:\s*[Bb]asic\s+[A-Za-z0-9+/=]{6,}"
    r")"
)
_USER_AND_PASSWORD: Final = re.compile(
    # Neither a port with an @ in the path, nor an image pinned by digest.
    r"[A-Za-z][\w+.-]*://[^\s/:@]*:(?!\d{1,5}(?:[/?#]|$))[^\s@]+@(?!sha\d+:)"
)
_USER_ONLY: Final = re.compile(r"https?://([^\s/:@?#]{16,})@")
_ADDRESS: Final = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")
_USERINFO: Final = re.compile(r"^([A-Za-z][\w+.-]*)://([^\s/?#]*)@")
_QUERY: Final = re.compile(r"([?&;#])([\w.-]+)=([^&;#\s]*)")
_PAIR: Final = re.compile(
    r"""(?<![\w.])([A-Za-z][\w-]*)["']?[^\S\n]*[=:][^\S\n]*["']?([^\s;,&"'(){}\[\]]{4,}+)(?![(\[])"""
)
_ASSIGNMENT: Final = re.compile(r"^[-+~]*([A-Za-z][\w.\-/@:]*?)=(.*)$", re.DOTALL)
_FLAG: Final = re.compile(r"^--?[A-Za-z][\w.-]*$")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NUMBER: Final = re.compile(r"[-+]?(?:\d[\d_.]{0,6})(?:[eE][-+]?\d{1,3})?")
_WORDS: Final = re.compile(r"[A-Za-z]{1,20}(?:[._-][A-Za-z]{1,20}){0,3}")
_PATH: Final = re.compile(
    r"(?:~|\.{0,2})/[\w.@+/ -]*|[\w.@+/-]+\.(?:json|pem|key|pub|txt|ya?ml|toml|env|crt|ini|cfg)"
)
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_EMPTY: Final = frozenset(("", "true", "false", "none", "null", "yes", "no", "on", "off"))
_RANDOM: Final = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")


def redact_argv(argv: Sequence[str], salt: bytes) -> list[Json]:
    """Copy a command line, with `canonical.redacted` in the place of each secret.

    An argument that holds name and value (``--token=…``) is replaced as a whole.
    """
    kept: list[Json] = []
    before = ""
    for argument in argv:
        is_secret = _is_secret_argument(argument, before)
        kept.append(_stand_in(argument, salt) if is_secret else plain(argument))
        before = argument
    return kept


def redact_value(name: str, value: object, salt: bytes) -> Json:
    """Make a value plain, with `canonical.redacted` in the place of each secret in it.

    Args:
        name: The name of the value; in a map, each key is the name of its own value.
        value: Any value that `canonical.plain` takes.
        salt: The secret of this run, at most 64 bytes.
    """
    if isinstance(value, Mapping) and not _is_marked(value):
        return {plain(str(key)): redact_value(str(key), value[key], salt) for key in value}
    if isinstance(value, (list, tuple)):
        return [redact_value(name, item, salt) for item in value]
    if isinstance(value, str):
        is_secret = _is_secret_value(name, value) or _looks_random(value)
        return _stand_in(value, salt) if is_secret else plain(value)
    form = plain(value)
    if value is None or isinstance(value, bool) or _suspicion(name) != "certain":
        return form
    return redacted(canonical_bytes(form).decode(), salt)


def redact_url(url: str) -> str:
    """Strip user, password and secret parameters from an address.

    The user of an ``ssh`` address stays: without it the address is of no use.
    """

    def without_userinfo(match: re.Match[str]) -> str:
        scheme, userinfo = match.groups()
        user = userinfo.partition(":")[0] if "ssh" in scheme else ""
        return f"{scheme}://{user}@" if user else f"{scheme}://"

    def without_secret(match: re.Match[str]) -> str:
        separator, name, value = match.groups()
        is_secret = name.lower() in ("sig", "signature") or name.lower().endswith("-signature")
        is_secret = is_secret or _is_secret_value(name, value)
        return f"{separator}{name}=[redacted]" if is_secret else match[0]

    return _SHAPES.sub(
        "[redacted]", _QUERY.sub(without_secret, _USERINFO.sub(without_userinfo, url))
    )


def redact_text(text: str) -> str:
    """Put ``[redacted]`` in the place of each secret in a text that people read.

    Secrets that show by their own shape, those in addresses, and those that follow their name.
    """

    def without_value(match: re.Match[str]) -> str:
        name, value = match.groups()
        if not _is_secret_pair(name, value):
            return match[0]
        return match[0][: match.start(2) - match.start()] + "[redacted]"

    text = _SHAPES.sub("[redacted]", text)
    text = _ADDRESS.sub(lambda match: redact_url(match[0]), text)
    return _PAIR.sub(without_value, text)


def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a secret unless it looks plain."""
    return _suspicion(name) != "none"


def _is_secret_argument(argument: str, before: str) -> bool:
    if _has_secret_shape(argument) or _looks_random(argument):
        return True
    assignment = _ASSIGNMENT.match(argument)
    if assignment and "://" not in assignment[1] and _is_secret_value(*assignment.groups()):
        return True
    if _FLAG.match(argument):
        return False
    if _FLAG.match(before) and not (_words(before) and _words(before)[0] in _SWITCHES):
        return _is_secret_value(before, argument)
    return before == "login" and re.fullmatch(r"[0-9a-f]{40}", argument) is not None


def _is_secret_value(name: str, value: str) -> bool:
    if _has_secret_shape(value):
        return True
    suspicion = _suspicion(name)
    if suspicion == "none" or value.lower() in _EMPTY or value.startswith("$"):
        return False
    if suspicion == "certain":
        return True
    if _NUMBER.fullmatch(value) or (_PATH.fullmatch(value) and not _looks_random(value)):
        return False
    return suspicion == "likely" or not _is_plain_text(value)


def _has_secret_shape(value: str) -> bool:
    if _SHAPES.search(value) or _USER_AND_PASSWORD.search(value):
        return True
    if (user := _USER_ONLY.search(value)) and re.search(r"\d", user[1]):
        return True
    return any(_is_secret_pair(name, text) for name, text in _PAIR.findall(value))


def _is_secret_pair(name: str, text: str) -> bool:
    # "host=db password=…", '{"api_key": "…"}', but not the "password=args.password" of a program.
    if _suspicion(name) != "certain" or text.lower() in _EMPTY:
        return False
    return not (_DOTTED.fullmatch(text) or text == name or text.startswith("$"))


def _suspicion(name: str) -> _Suspicion:
    words = _words(name)
    if not words or words[0] in _SWITCHES or words[-1] in _ABOUT:
        return "none"
    if any(word in _SECRET_WORDS or word.endswith(("password", "passwd")) for word in words):
        return "certain"
    last, owner = words[-1], words[-2] if len(words) > 1 else ""
    if last == "pass":
        return "certain" if owner in _PASS_OWNERS else "none"
    if last in ("token", "key", "tokens", "keys"):
        return _suspicion_of_token(last, owner)
    return "possible" if last in ("pwd", "auth", "credential", "credentials") else "none"


def _suspicion_of_token(last: str, owner: str) -> _Suspicion:
    if owner in _OWNERS:
        return "certain"
    if last in ("tokens", "keys") or owner in _TEXT_WORDS:
        return "none"
    return "likely" if last == "token" and not owner else "possible"


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _is_plain_text(value: str) -> bool:
    is_marker = value[0] + value[-1] in ("<>", "[]", "{}")
    return is_marker or _WORDS.fullmatch(value) is not None


def _looks_random(value: str) -> bool:
    return any(
        _kinds(text) == {"a", "A", "0"} and _bits_per_character(text) > 4.2 and _is_restless(text)
        for text in _RANDOM.findall(value)
    )


def _is_restless(text: str) -> bool:
    # In words and versions the kind of character changes seldom; in random text at most places.
    kinds = [_kind(character) for character in text]
    changes = [a != b for a, b in itertools.pairwise(kinds) if "-" not in (a, b)]
    return sum(changes) > 0.4 * len(text)


def _kinds(text: str) -> set[str]:
    return {_kind(character) for character in text} - {"-"}


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    return ("A" if character.isupper() else "a") if character.isalpha() else "-"


def _bits_per_character(text: str) -> float:
    shares = [text.count(character) / len(text) for character in set(text)]
    return -sum(share * math.log2(share) for share in shares)


def _is_marked(value: Mapping[object, object]) -> bool:
    return len(value) == 1 and str(next(iter(value))).startswith("$")


def _stand_in(value: str, salt: bytes) -> Json:
    return redacted(plain(value), salt)
