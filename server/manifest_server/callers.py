"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from manifest.models import Scope, Token
from manifest_server.auditing import Change
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    name: str
    scopes: frozenset[Scope]
    project: str | None = None
    """The one project whose runs they see; None for all."""
    token_id: str | None = None

    @classmethod
    def of(cls, token: Token) -> Caller:
        """Whoever shows a token."""
        return cls(token.name, frozenset(token.scopes), token.project, token.id)

    def check_scope(self, scope: Scope) -> None:
        """Refuse what the caller may not do; who may write may read, too."""
        if scope not in self.scopes and not (scope == "read" and "write" in self.scopes):
            held = ", ".join(sorted(self.scopes))
            detail = f"this takes a token with the scope '{scope}'; yours has: {held}"
            raise Problem(403, "scope-lacking", detail)

    def change(self, action: str, subject: str) -> Change:
        """What is written down of something that the caller does."""
        return Change(self.name, self.token_id, action, subject)

    def audit(self, store: SqlStore, action: str, subject: str) -> None:
        """Write down that the caller has changed something."""
        store.put_change(self.change(action, subject))

    def check_project(self, project: str) -> None:
        """Refuse what is written into a project that is not the caller's."""
        if self.project is not None and project != self.project:
            detail = f"this token writes into the project '{self.project}' alone"
            raise Problem(403, "project-refused", detail)


OWNER: Final = Caller("owner", frozenset(get_args(Scope)))
"""The user of this machine, where no token is asked for."""
