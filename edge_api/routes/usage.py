"""Usage of language models by the runs of a user."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.parsing import read_query
from edge_api.http.principal import Principal
from edge_api.http.responses import ok
from edge_api.http.usage_models import UsageQuery, UsageReport
from edge_api.settings import READ_RUNS
from infra.contract.redis_store.run_index import RunIndex


class UsageRoutes:
    """Report what the runs of a user have used."""

    def __init__(self, store: RunIndex) -> None:
        self._store = store

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/usage",
                self.report,
                READ_RUNS,
                operation_id="getUsage",
                summary="Report the usage of language models in your runs, by day.",
                success={200: UsageReport},
                errors=[422],
                query=UsageQuery,
            )
        ]

    async def report(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/usage`."""
        days = read_query(request, UsageQuery).days
        return ok(UsageReport.of(await self._store.usage(principal.user, days)))
