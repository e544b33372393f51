"""Environment that knows which of its variables were read."""

from collections.abc import Mapping

from infra.settings import Env


class RecordedEnv(Env):
    """Environment that records the names of the variables which are read."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def optional(self, name: str) -> str | None:
        self.names.add(name)
        return super().optional(name)
