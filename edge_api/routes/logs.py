"""Log of a run: read in pages, or followed live."""

from collections.abc import Sequence

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from edge_api.http.endpoint import LAST_EVENT_ID, ApiEndpoint
from edge_api.http.parsing import last_event_id, read_query
from edge_api.http.principal import Principal
from edge_api.http.request_models import LogQuery, StreamQuery
from edge_api.http.response_models import Gap, LogEvent, LogPage
from edge_api.http.responses import no_content, ok
from edge_api.logs.longpoll import LongPoll
from edge_api.logs.reader import LogReader
from edge_api.logs.sse import EventStream, LogStreams
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, ApiSettings
from infra.contract.log import Event
from infra.contract.states import TERMINAL


class LogRoutes:
    """Both ways to read a log. Pages and streams contain the same events."""

    def __init__(self, runs: RunService, reader: LogReader, streams: LogStreams, settings: ApiSettings) -> None:
        self._runs = runs
        self._reader = reader
        self._streams = streams
        self._settings = settings

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/logs/{run_id}",
                self.page,
                READ_RUNS,
                stream_token=True,
                operation_id="readLog",
                summary="Read a page of a run's log.",
                success={200: LogPage},
                errors=[404, 422],
                query=LogQuery,
            ),
            ApiEndpoint(
                "GET",
                "/agent/logs/{run_id}/stream",
                self.stream,
                READ_RUNS,
                stream_token=True,
                operation_id="streamLog",
                summary="Follow a run's log: unnamed events with a LogEvent as data and its seq as id; `gap` for "
                "events that no longer exist; `end` after the last event of an ended run. 204: the client has all "
                "events.",
                success={200: "text/event-stream", 204: None},
                errors=[404, 422],
                query=StreamQuery,
                headers=[LAST_EVENT_ID],
            ),
        ]

    async def page(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/logs/{run_id}`."""
        query = read_query(request, LogQuery)
        run = await self._runs.log(principal.user, request.path_params["run_id"])
        items = await self._reader.page(run, query.after, query.limit)
        events = [LogEvent.of(item) for item in items if isinstance(item, Event)]
        gap = next((item for item in items if isinstance(item, Gap)), UNSET)
        next_after = max([query.after, *(event.seq for event in events), gap.last if gap else 0])
        page = LogPage(
            events=events,
            last_seq=max(run.seq, events[-1].seq if events else 0),
            next_after=next_after,
            done=run.status in TERMINAL and next_after >= run.seq,
            gap=gap,
        )
        return ok(page)

    async def stream(self, request: Request, principal: Principal) -> ASGIApp:
        """`GET /agent/logs/{run_id}/stream`: events until the run has ended, or a long poll in the mode `longpoll`.

        204 if the run has ended and the client has all events: it makes an EventSource stop reconnecting.
        """
        query = read_query(request, StreamQuery)
        # A reconnecting EventSource repeats the URL with its old `after`; only the header, or the parameter that a
        # polyfill adds, has the last event.
        given = (last_event_id(request), query.last_event_id)
        after = next((seq for seq in given if seq is not None), query.after)
        run = await self._runs.log(principal.user, request.path_params["run_id"])
        if run.status in TERMINAL and after >= run.seq:
            return no_content()
        source = self._reader.follow(run, after)
        if self._settings.log_mode == "longpoll":
            return LongPoll(run, source, self._settings, self._streams)
        return EventStream(run.id, source, self._settings, self._streams)
