"""Files that may hold secrets, which are never kept."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final

from manifest.environment.redaction import redact_text

_MOST_READ_BYTES: Final = 64 << 10  # a file of settings; what is larger is data
_NAMES: Final = re.compile(
    r"\.env(?:\..*|rc)?|\.netrc|\.npmrc|\.pypirc|\.pgpass|\.htpasswd|\.git-credentials|id_[a-z0-9]+"
    r"|.*\.(?:pem|key|p12|pfx|jks|keystore|ppk|kdbx)|.*(?:secret|credential|passw(?:or)?d|api_?key).*"
    r"|(?:.*[._-])?tokens?(?:\.(?:txt|json|ya?ml|toml))?|service[-_]account.*\.json|kubeconfig"
)


def is_confidential(path: str, content: bytes) -> bool:
    """Whether a file that is no source code may hold a secret.

    Args:
        path: Its name decides where it is one that people give to such files.
        content: Its text decides else.
    """
    if path.endswith((".py", ".pyi", ".ipynb")):
        return False
    if _NAMES.fullmatch(PurePath(path).name.lower()):
        return True
    if len(content) > _MOST_READ_BYTES or b"\0" in content:
        return False
    text = content.decode("utf-8", "replace")
    return redact_text(text) != text
