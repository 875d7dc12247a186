"""What an agent was told to be, and what of that its runs take up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ponder.billing import Prices
from ponder.models import Progress
from ponder.policies.hosts import HostRules
from ponder.protocols import Core, Judge, StopPolicy, Strategy
from ponder.records import Limits, Record


@dataclass(frozen=True)
class Plan:
    """What an agent was told to be; see `Agent`."""

    core: str | Core
    tools: tuple[str, ...]
    strategy: Strategy
    judge: Judge
    policy: StopPolicy
    limits: Limits
    prices: Prices
    hosts: HostRules
    value: float | None
    risk: float | None
    home: Path
    progress: Progress | None
    record: Path | None
    whole_process: bool


class Terms(Record):
    """What a run was begun with that its manifest does not tell; `ponder runs resume` takes it up again."""

    value: float | None = None
    risk: float | None = None
    prices: Prices = Prices()
    allow_private: bool = False
    permitted: tuple[str, ...] = ()
    only_hosts: tuple[str, ...] | None = None

    @classmethod
    def of(cls, plan: Plan) -> Terms:
        """Return the terms of an agent's runs."""
        hosts = plan.hosts
        return cls(
            value=plan.value,
            risk=plan.risk,
            prices=plan.prices,
            allow_private=hosts.allow_private,
            permitted=tuple(sorted(hosts.permitted)),
            only_hosts=None if hosts.only_hosts is None else tuple(sorted(hosts.only_hosts)),
        )

    @property
    def hosts(self) -> HostRules:
        """Which pages may be visited."""
        only = None if self.only_hosts is None else frozenset(self.only_hosts)
        return HostRules(allow_private=self.allow_private, permitted=frozenset(self.permitted), only_hosts=only)
