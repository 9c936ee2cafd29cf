"""Tokens: who may ask what of the service.

A token is 256 random bits, shown once; what is kept is its SHA-256, which tells nothing to whoever
reads the database. As the bits are random, nothing slower than SHA-256 is needed: slow digests are
for passwords that people choose, and would let strangers keep the service busy.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from sqlalchemy import Connection, insert, or_, select, update

from manifest.errors import TokenNotFound
from manifest.identity import new_run_id
from manifest.models import Scope, Token
from manifest_server.tables import tokens

PREFIX: Final = "mft_"
"""What every token begins with, so that scanners for leaked secrets know one."""

_SECRET_BYTES: Final = 32
_USE_IS_NOTED_EVERY = timedelta(minutes=1)
_FIELDS: Final = [tokens.c[name] for name in Token.model_fields]


def create_token(
    connection: Connection,
    *,
    name: str,
    scopes: Sequence[Scope],
    project: str | None = None,
    lifetime: timedelta | None = None,
) -> tuple[Token, str]:
    """Make a token.

    Returns:
        What is known of it, and the token itself, which is not kept.
    """
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    now = datetime.now(UTC)
    token = Token(
        id=new_run_id(),
        name=name,
        scopes=tuple(scope for scope in get_args(Scope) if scope in scopes),
        project=project,
        created_at=_written(now),
        expires_at=_written(now + lifetime) if lifetime is not None else None,
    )
    row = {**token.model_dump(), "scopes": ",".join(token.scopes), "digest": _digest(secret)}
    connection.execute(insert(tokens).values(row))
    return token, secret


def find_token(connection: Connection, secret: str) -> Token | None:
    """The token that a caller shows, if it is valid now."""
    now = _written(datetime.now(UTC))
    is_valid = (
        tokens.c.revoked_at.is_(None),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
    )
    # Found by its digest: how long that takes says nothing about the token.
    statement = select(*_FIELDS).where(tokens.c.digest == _digest(secret), *is_valid)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _token(row._asdict())


def is_use_noted(token: Token) -> bool:
    """Whether a use of this moment need not be written down."""
    if token.last_used_at is None:
        return False
    return datetime.now(UTC) - datetime.fromisoformat(token.last_used_at) < _USE_IS_NOTED_EVERY


def note_use(connection: Connection, token_id: str) -> None:
    """Write down that a token was used now."""
    now = _written(datetime.now(UTC))
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=now))


def list_tokens(connection: Connection) -> list[Token]:
    """What is known of every token, the newest first."""
    rows = connection.execute(select(*_FIELDS).order_by(tokens.c.id.desc()))
    return [_token(row._asdict()) for row in rows]


def revoke_token(connection: Connection, token_id: str) -> None:
    """Let a token be of no use any more.

    Raises:
        TokenNotFound: There is no such token, or it was revoked before.
    """
    statement = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
    revoked = connection.execute(statement.values(revoked_at=_written(datetime.now(UTC))))
    if revoked.rowcount != 1:
        raise TokenNotFound(token_id)


def _digest(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: dict[str, object]) -> Token:
    return Token.model_validate({**row, "scopes": str(row["scopes"]).split(",")})


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
