"""Lua scripts, one file per atomic step, called by the names in their headers.

Each file begins with two header lines, which a continuation line (`--   …`) may extend:

    -- KEYS: run, log
    -- ARGV: fence, batch (digits), count (number), events, then field, value

`load` turns them into Lua: it checks how many keys and arguments came, and defines a local variable for each name. A
`(number)` is converted, `(digits)` is checked and stays text; both are checked before the script's first write, because
a script that fails half-way is not rolled back. After `then`, further values follow in groups; they start at index
`MORE`, keys at index `MORE_KEYS`. The table of states, the names of journal fields and `lib.lua` precede the header.

`ScriptCaller` looks up keys by the same names in `Keys`, and raises TypeError for a missing or unknown argument before
anything is sent.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from infra.contract import journal, webhooks
from infra.contract.files import FILE_PREFIX
from infra.contract.keys import EXPIRIES, OVERDUE_EVENTS, USAGE_DAYS, Keys
from infra.contract.redis import Argument, Redis, Reply, Script
from infra.contract.states import NEXT, TERMINAL

_HEADER = re.compile(r"-- KEYS:(?P<keys>.*)\n-- ARGV:(?P<args>.*(?:\n--   .*)*)\n")
_NAME = re.compile(r"(?P<name>\w+)(?: \((?P<kind>number|digits)\))?")
_MORE = ", then "
_WEBHOOK_NUMBERS = ("MAX_EVENTS", "MAX_ATTEMPTS_SHOWN", "MAX_OUTBOX", "MAX_USER_OUTBOX", "GRACE_MS", "AGAIN_MS")


def load(name: str, package: str = __package__) -> Script:
    """Return the script `name` of a package. Raises ValueError if its header is malformed."""
    body = (_folder(package) / f"{name}.lua").read_text()
    header = _HEADER.match(body)
    if header is None:
        raise ValueError(f"{name}.lua must begin with the lines '-- KEYS: …' and '-- ARGV: …'")
    keys, _, more_keys = header["keys"].partition(_MORE)
    args, _, more_args = re.sub(r"\n--  ", "", header["args"]).partition(_MORE)
    key_names, arg_names = _names(keys, name), _names(args, name)
    text = "\n".join((_prelude(), _locals(key_names, arg_names), body))
    return Script(
        name=name,
        text=text,
        sha1=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        keys=tuple(key_names),
        args=tuple(arg_names),
        more_keys=bool(more_keys),
        more_args=bool(more_args),
    )


class ScriptCaller:
    """Calls scripts with keys and arguments by name."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def call(
        self,
        script: Script,
        args: Mapping[str, Argument] = MappingProxyType({}),
        *,
        run_id: str = "",
        user: str = "",
        named_keys: Mapping[str, str] = MappingProxyType({}),
        more_keys: Sequence[str] = (),
        more_args: Sequence[Argument] = (),
    ) -> Reply:
        """Run a script. The keys and the arguments `id`, `user`, `channel`, `control` and prefixes follow from `run_id`
        and `user`; `args` and `named_keys` hold the others.

        Raises TypeError if a name is missing or unknown, or if the script takes no further values but some are given.
        """
        keys = [named_keys[name] if name in named_keys else self._key(name, run_id, user) for name in script.keys]
        ordered = [args[name] if name in args else self._derived(name, run_id, user) for name in script.args]
        if None in ordered or not args.keys() <= set(script.args):
            raise TypeError(f"the script '{script.name}' takes the arguments {script.args}; given: {sorted(args)}")
        if (more_keys and not script.more_keys) or (more_args and not script.more_args):
            raise TypeError(f"the script '{script.name}' takes no further keys or arguments")
        values = [value for value in ordered if value is not None]
        return await self._redis.script(script, [*keys, *more_keys], [*values, *more_args])

    def _derived(self, name: str, run_id: str, user: str) -> str | None:
        """Return an argument that follows from the run and the user; None for any other name."""
        match name:
            case "id":
                return run_id
            case "user":
                return user
            case "channel":
                return self._keys.channel(run_id)
            case "control" | "run_prefix" | "channel_prefix":
                return str(getattr(self._keys, name))
            case _:
                return None

    def _key(self, name: str, run_id: str, user: str) -> str:
        match name:
            case "run":
                return self._keys.run(run_id)
            case "log":
                return self._keys.log(run_id)
            case "user_runs":
                return self._keys.user_runs(user)
            case _:
                return str(getattr(self._keys, name))


def _names(text: str, script: str) -> dict[str, str]:
    """Return the kind of each name in a header line, in order."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name = _NAME.fullmatch(part)
        if name is None:
            raise ValueError(f"{script}.lua has a malformed name in its header: '{part}'")
        found[name["name"]] = name["kind"] or "text"
    return found


def _locals(keys: dict[str, str], args: dict[str, str]) -> str:
    """Return Lua source that checks and names the keys and arguments."""
    lines = [f"expect({len(keys)}, {len(args)})"]
    lines += [f"local {name} = KEYS[{index}]" for index, name in enumerate(keys, 1)]
    for index, (name, kind) in enumerate(args.items(), 1):
        value = f"ARGV[{index}]"
        checked = value if kind == "text" else f"{kind}({value}, '{name}')"
        lines.append(f"local {name} = {checked}")
    lines += [f"local MORE = {len(args) + 1}", f"local MORE_KEYS = {len(keys) + 1}"]
    return "\n".join(lines)


def _folder(package: str) -> Path:
    """Return the folder of a package. `importlib.resources` would also read it, but costs a cold start 5 ms."""
    return Path(str(import_module(package).__file__)).parent


@cache
def _prelude() -> str:
    """Return the Lua source before the locals of every script."""
    return "\n".join((_constants(), Path(__file__).with_name("lib.lua").read_text()))


def _constants() -> str:
    """Return the table of transitions, the set of terminal states and the names of fields as Lua source."""
    rows = ", ".join(
        f"{state} = {{ {', '.join(f'{target} = true' for target in sorted(targets))} }}"
        for state, targets in NEXT.items()
    )
    ends = ", ".join(f"{state} = true" for state in sorted(TERMINAL))
    keys = {
        "JOURNAL_STARTED": journal.STARTED,
        "JOURNAL_EXECUTION": journal.EXECUTION,
        "JOURNAL_LOGGED": journal.LOGGED,
        "JOURNAL_SESSION": journal.SESSION,
    }
    names = {name: f"{journal.FIELD_PREFIX}{key}" for name, key in keys.items()}
    names |= {"FILE": FILE_PREFIX, "EXPIRIES": EXPIRIES, "OVERDUE_EVENTS": OVERDUE_EVENTS}
    texts = "\n".join(f"local {name} = '{text}'" for name, text in names.items())
    numbers = {name: getattr(webhooks, name) for name in _WEBHOOK_NUMBERS} | {"USAGE_S": USAGE_DAYS * 24 * 3600}
    usage = "\n".join(f"local {name} = {number}" for name, number in numbers.items())
    return f"local NEXT = {{ {rows} }}\nlocal TERMINAL = {{ {ends} }}\n{texts}\n{usage}"
