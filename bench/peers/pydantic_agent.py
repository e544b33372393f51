"""Agent of pydantic-ai with one tool: `python pydantic_agent.py URL stream|whole`."""

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits


async def main() -> None:
    url, mode = sys.argv[1:]
    agent = Agent(OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=url, api_key="none")))

    @agent.tool_plain
    def message(text: str) -> str:
        """Log a message for the people who watch the run."""
        print(text)
        return "done"

    async def consume(_, events) -> None:
        async for _event in events:
            pass

    limits = UsageLimits(request_limit=None)
    await agent.run("Say it all.", usage_limits=limits, event_stream_handler=consume if mode == "stream" else None)


asyncio.run(main())
