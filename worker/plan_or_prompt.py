"""Choice of the way in which a run is worked on: its explicit plan, or the agent for its prompt."""

from collections.abc import Callable

from infra.contract.runs import RunError
from worker.run.context import RunContext
from worker.run.strategy import StepFailed, Strategy


class PlanOrPrompt:
    """Passes each run to one of two strategies; implements Strategy. `prompts` is None if no model is configured."""

    def __init__(self, plans: Strategy, prompts: Strategy | None) -> None:
        self._plans = plans
        self._prompts = prompts

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        """Work on the run as its strategy does. Raises StepFailed, and the errors of the strategy."""
        if context.run.spec.plan is not None:
            return await self._plans.work(context, draining)
        if self._prompts is None:
            message = (
                "the run has a prompt and no plan, and the worker that took it has no model; configure one "
                "(LLM_BASE_URL, LLM_MODEL), or give the run an explicit plan"
            )
            raise StepFailed(RunError(code="no_model", message=message))
        return await self._prompts.work(context, draining)
