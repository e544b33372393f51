"""Tokens and cost of a reply, from the figures of the endpoint or by estimate."""

from typing import Any

from infra.contract.llm import ModelChoice, Usage, estimated_tokens


def usage_of(reported: Any, model: ModelChoice, request: bytes, output_bytes: int) -> Usage:
    """Return the usage of a reply. What the endpoint leaves out is estimated from the size of request and reply."""
    told = reported if isinstance(reported, dict) else {}
    input_tokens, output_tokens = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
    cached = _count(told.get("prompt_tokens_details"), "cached_tokens") or _count(told, "prompt_cache_hit_tokens") or 0
    reasoning = _count(told.get("completion_tokens_details"), "reasoning_tokens") or 0
    estimated = input_tokens is None or output_tokens is None
    if input_tokens is None:
        input_tokens = estimated_tokens(len(request))
    if output_tokens is None:
        output_tokens = estimated_tokens(output_bytes)
    elif reasoning and _count(told, "total_tokens") == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning  # some providers count reasoning beside the other output
    cached, reasoning = min(cached, input_tokens), min(reasoning, output_tokens)
    return Usage(
        input=input_tokens,
        output=output_tokens,
        cached=cached,
        reasoning=reasoning,
        estimated=estimated,
        cost_micros=model.cost_micros(input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached),
    )


def _count(value: Any, name: str) -> int | None:
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, float) and found.is_integer():  # JSON has one kind of number
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**40 else None
