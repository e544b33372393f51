"""Errors of Redis behind the REST API, as the contract names them."""

import pytest
from upstash_redis.errors import UpstashError

from infra.contract.errors import StoreFull, StoreRefuses, StoreRejected, StoreUnavailable
from infra.redis_rest.upstash import _translate_errors


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("ERR DB capacity quota exceeded", StoreFull),
        ("READONLY You can't write against a read only replica.", StoreRefuses),
        ("LOADING Redis is loading the dataset in memory", StoreRefuses),
        ("ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.", StoreRefuses),
        ("ERR max request size exceeded. Limit: 10485760 bytes", StoreRejected),
        ("ERR connection to Redis lost before the answer; the command may have been executed", StoreUnavailable),
        ("ERR an earlier command of the pipeline got no reply; the command was not sent", StoreUnavailable),
        ("ERR max request size exceeded. Limit: 10; the command may have been executed", StoreRejected),
        ("ERR unknown command 'X'", StoreRejected),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreRejected),
    ],
)
async def test_an_error_of_redis_has_its_class(text: str, kind: type[Exception]) -> None:
    async def failing() -> None:
        raise UpstashError(text)

    with pytest.raises(kind) as caught:
        await _translate_errors(failing())
    assert type(caught.value) is kind
