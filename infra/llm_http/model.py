"""Exchange with language models: tries, pauses, fallback models."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from infra.contract.llm import (
    ContextTooLong,
    Delta,
    ModelBusy,
    ModelChoice,
    ModelCut,
    ModelError,
    ModelRefused,
    ModelRejected,
    ModelRequest,
    ModelUnavailable,
    OnProgress,
    Reply,
    RetryNotice,
    Usage,
)
from infra.llm_http.assembly import Assembly
from infra.llm_http.body import parse_constrained, quirk, request_body
from infra.llm_http.endpoint import Endpoint
from infra.llm_http.failures import Blame, TryFailed, clean
from infra.llm_http.settings import LlmSettings
from infra.llm_http.usage import usage_of

MAX_BACKOFF_S = 8.0
_FINAL: dict[Blame, type[ModelError]] = {
    "context": ContextTooLong,
    "cut": ModelCut,
    "endpoint": ModelRejected,
    "refused": ModelRefused,
}
"""Errors that another try, or another model, would meet again, or should not try to evade."""


class LlmHttp:
    """Implements LanguageModel over an OpenAI-compatible endpoint for chat completions."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._endpoint = Endpoint(settings)
        self._quirks: dict[str, frozenset[str]] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._endpoint.close()

    async def ask(self, request: ModelRequest, on_progress: OnProgress | None = None) -> Reply:
        """Return the whole reply of the first model that gives one. Raises ModelError, HostExhausted."""
        started = time.monotonic()
        exchange = _Exchange(request, on_progress)
        while True:
            exchange.tries += 1
            try:
                reply = await self._try(request, exchange)
            except TryFailed as failure:
                await self._after(failure, exchange)
            else:
                ms = int((time.monotonic() - started) * 1000)
                return msgspec.structs.replace(reply, wasted=exchange.wasted, tries=exchange.tries, ms=ms)

    async def _try(self, request: ModelRequest, exchange: "_Exchange") -> Reply:
        model, mode = exchange.model, self._settings.tool_mode
        body = request_body(request, model.name, mode, self._quirks.get(model.name, frozenset()))
        constrained = mode == "json_schema" and bool(request.tools)
        assembly = Assembly()

        async def on_delta(deltas: Sequence[Delta]) -> None:
            for delta in deltas:
                # The text of a constrained reply is JSON, which is nothing to show.
                if exchange.on_progress is not None and not (constrained and delta.kind == "text"):
                    await exchange.on_progress(delta)

        try:
            await self._endpoint.exchange(body, assembly, on_delta, stream=request.stream)
            text, calls, finish, opaque = assembly.whole(model.name)
            if constrained and not calls:
                if finish == "length":
                    raise TryFailed("the reply was cut at the limit of output tokens", "cut")
                text, calls = parse_constrained(text, request.tools)
                finish = "calls" if calls else "stop"
        except TryFailed as failure:
            if assembly.usage or assembly.output_bytes():
                failure.usage = usage_of(assembly.usage, model, body, assembly.output_bytes())
            raise
        return Reply(
            purpose=request.purpose,
            text=text,
            calls=calls,
            finish=finish,
            model=model.name,
            served=assembly.served or model.name,
            usage=usage_of(assembly.usage, model, body, assembly.output_bytes()),
            opaque=opaque,
        )

    async def _after(self, failure: TryFailed, exchange: "_Exchange") -> None:
        """Prepare the next try, and wait until it is due. Raises ModelError if there is none."""
        reason = clean(failure.reason, self._settings.api_key)
        exchange.wasted += failure.usage or Usage()
        name = exchange.model.name
        if failure.blame in _FINAL:
            exchange.fail(_FINAL[failure.blame](reason))
        known = self._quirks.get(name, frozenset())
        if failure.blame == "model" and (found := quirk(failure.reason, known)):
            self._quirks[name] = known | {found}
            return
        pause_s = self._pause_s(failure, exchange.repeats)
        exhausted = exchange.repeats >= self._settings.max_retries or pause_s > self._settings.max_pause_s
        if exhausted or failure.blame == "model":
            exchange.give_up(failure, reason, self._settings.max_pause_s)
            pause_s = 0.0
        else:
            exchange.repeats += 1
        if exchange.on_progress is not None:
            retry = RetryNotice(model=name, reason=reason, next_model=exchange.model.name, after_s=round(pause_s, 3))
            await exchange.on_progress(retry)
        await asyncio.sleep(pause_s)

    def _pause_s(self, failure: TryFailed, repeats: int) -> float:
        if failure.after_s is not None:
            return failure.after_s
        # Spread, so that the runs of a fleet do not return together.
        return min(self._settings.backoff_s * 2.0**repeats, MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311


class _Exchange:
    """State of one exchange: the model to ask next, how often it was asked again, and why others were given up."""

    def __init__(self, request: ModelRequest, on_progress: OnProgress | None) -> None:
        self.on_progress = on_progress
        self.tries = 0
        self.repeats = 0
        self.wasted = Usage()
        self._models = list(request.models)
        self._busy_s: list[float] = []
        self._rejected = 0
        self._given_up = 0

    @property
    def model(self) -> ModelChoice:
        """Model of the next try."""
        return self._models[self._given_up]

    def give_up(self, failure: TryFailed, reason: str, default_s: float) -> None:
        """Turn to the next model. Raises the ModelError of the exchange if there is none."""
        if failure.blame == "busy":
            self._busy_s.append(default_s if failure.after_s is None else max(failure.after_s, 1.0))
        self._rejected += failure.blame == "model"
        if self._given_up + 1 < len(self._models):
            self._given_up += 1
            self.repeats = 0
            return
        if self._busy_s:
            self.fail(ModelBusy(reason, min(self._busy_s)))
        self.fail(ModelRejected(reason) if self._rejected == len(self._models) else ModelUnavailable(reason))

    def fail(self, error: ModelError) -> NoReturn:
        """Raise the error, with the tokens of all tries."""
        error.usage = self.wasted
        # The failures of tries may contain the key; see `clean`.
        raise error from None
