"""JSON body of a request, in the native form or for a model whose reply is constrained to one JSON object.

The second form (`json_schema`) makes small local models usable: tools are described in the system message, the reply is
`{"tool", "args"}` or `{"answer"}`, calls and their results appear in the conversation as text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from infra.contract.llm import Call, ChatMessage, ModelRequest, ToolSpec
from infra.llm_http.failures import NOT_JSON, TryFailed
from infra.llm_http.opaque import OPAQUE

ToolMode = Literal["native", "json_schema"]
_REJECTED = re.compile(
    r"unsupported|not supported|extra|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed", re.I
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
MAX_NAME_CHARS = 64
_INSTRUCTIONS = """Reply with exactly one JSON object: {"tool": NAME, "args": {…}} to call a tool, or {"answer": TEXT}.
Tools, with the JSON Schema of their arguments:"""


def request_body(request: ModelRequest, model: str, mode: ToolMode, quirks: frozenset[str]) -> bytes:
    """Return the body of a request to one model. `quirks`: see `quirk`."""
    limit = "max_completion_tokens" if "max_tokens" in quirks else "max_tokens"
    body: dict[str, Any] = {"model": model, "stream": request.stream, limit: request.max_output_tokens}
    if request.stream and "stream_options" not in quirks:
        body["stream_options"] = {"include_usage": True}
    if mode == "native":
        body["messages"] = [_native(message, "" if "opaque" in quirks else model) for message in request.messages]
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
            if "tool_choice" not in quirks:  # models that think reject every choice but the default
                body["tool_choice"] = "required" if request.must_call else "auto"
    else:
        body["messages"] = _constrained(request.messages, request.tools)
        if request.tools:
            schema = {"name": "reply", "strict": True, "schema": _reply_schema(request)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return msgspec.json.encode(body)


def quirk(reason: str, known: frozenset[str]) -> str | None:
    """Return what a model rejects, from the reason of its rejection, if this was not known yet.

    That is the name of a field, or `opaque` for the fields that a model has sent and does not want back.
    """
    if "max_completion_tokens" in reason and "max_tokens" not in known:
        return "max_tokens"
    if any(name in reason for name in OPAQUE) and _REJECTED.search(reason) and "opaque" not in known:
        return "opaque"
    return next((name for name in ("stream_options", "tool_choice") if name in reason and name not in known), None)


def parse_constrained(text: str, tools: Sequence[ToolSpec]) -> tuple[str, Sequence[Call]]:
    """Return the answer, or the one call, of a constrained reply. Raises TryFailed for anything else."""
    try:
        value = msgspec.json.decode(_unwrapped(text))
    except NOT_JSON:
        value = None
    match value:
        case {"answer": str(answer), **rest} if not rest:
            return answer, ()
        case {"tool": str(name), "args": dict(args), **rest} if not rest and name in {tool.name for tool in tools}:
            return "", (Call(id="call_0", name=name, arguments=msgspec.json.encode(args).decode()),)
    raise TryFailed("the reply is not the JSON object that was asked for")


def _unwrapped(text: str) -> str:
    """Return a constrained reply without the thoughts before it, and without the fence around it."""
    text = text.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    return text


def _native(message: ChatMessage, model: str) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if message.role != "assistant":
        return {"role": message.role, "content": message.text}
    opaque = message.opaque.get(model, {})
    made: dict[str, Any] = {"role": "assistant", "content": message.text or (None if message.calls else "")}
    made |= opaque.get("message", {})
    if message.calls:
        extra = opaque.get("calls", {})
        made["tool_calls"] = [_native_call(call, extra.get(str(n), {})) for n, call in enumerate(message.calls)]
    return made


def _native_call(call: Call, opaque: Mapping[str, Any]) -> dict[str, Any]:
    # Endpoints reject a conversation with another name; the tool's result says that there is no such tool.
    name = _NOT_IN_NAMES.sub("_", call.name)[:MAX_NAME_CHARS]
    function = {"name": name, "arguments": msgspec.json.encode(_arguments(call)).decode()}
    return {**opaque, "id": call.id, "type": "function", "function": function}


def _arguments(call: Call) -> Mapping[str, Any]:
    """Return the arguments as an object: several servers reject a conversation with invalid ones, or crash."""
    try:
        value = msgspec.json.decode(call.arguments)
    except NOT_JSON:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": call.arguments[:1000]}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _constrained(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> list[dict[str, str]]:
    described = [f"- {tool.name}: {tool.description} {msgspec.json.encode(tool.parameters).decode()}" for tool in tools]
    # Without tools, the reply is a text; calls and results of earlier replies are text all the same.
    guide = "\n".join([_INSTRUCTIONS, *described]) if tools else ""
    first = messages[0] if messages and messages[0].role == "system" else None
    system = "\n\n".join(part for part in (first.text if first else "", guide) if part)
    made = [{"role": "system", "content": system}] if system else []
    names: dict[str, str] = {}
    for message in messages[1:] if first else messages:
        names |= {call.id: call.name for call in message.calls}
        if message.role == "tool":
            made.append(
                {"role": "user", "content": f"Result of {names.get(message.call_id, 'a tool')}:\n{message.text}"}
            )
        else:
            made.append({"role": message.role, "content": _spoken(message)})
    return made


def _spoken(message: ChatMessage) -> str:
    if message.role != "assistant":
        return message.text
    objects: list[Mapping[str, Any]] = [{"tool": call.name, "args": _arguments(call)} for call in message.calls]
    if message.text or not objects:
        objects.insert(0, {"answer": message.text})
    return "\n".join(msgspec.json.encode(each).decode() for each in objects)


def _reply_schema(request: ModelRequest) -> dict[str, Any]:
    choices = [_object_schema({"tool": {"const": tool.name}, "args": tool.parameters}) for tool in request.tools]
    if not request.must_call:
        choices.append(_object_schema({"answer": {"type": "string"}}))
    return {"anyOf": choices} if len(choices) > 1 else choices[0]


def _object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
