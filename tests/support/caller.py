"""ExecutionCaller of an execution, for tests that call an executor without a run."""

from dataclasses import dataclass, field

from infra.contract.lending import OpenExecution


@dataclass
class LoneCaller:
    """ExecutionCaller that keeps what it is told; implements the port `ExecutionCaller`."""

    number: int = 1
    recorded: list[OpenExecution] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    elsewhere: bool = False

    async def record(self, begun: OpenExecution) -> None:
        self.recorded.append(begun)

    def continues_elsewhere(self) -> bool:
        return self.elsewhere

    def warn(self, message: str) -> None:
        self.warnings.append(message)
