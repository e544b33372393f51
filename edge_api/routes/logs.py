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
from edge_api.http.response_models import LogEvent, LogPage
from edge_api.http.responses import no_content, ok
from edge_api.logs.filtered import FilteredSource
from edge_api.logs.filters import EventFilter
from edge_api.logs.items import ItemSource
from edge_api.logs.longpoll import LongPoll
from edge_api.logs.pages import LogPages
from edge_api.logs.reader import LogReader
from edge_api.logs.sse import EventStream, LogStreams
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, ApiSettings
from infra.contract.errors import InvalidInput
from infra.contract.states import TERMINAL

SKIPPED_EVERY_S = 1.0
"""Shortest time between two `skipped` events of a stream whose filter excludes all events."""


class LogRoutes:
    """Both ways to read a log. Pages and streams contain the same events."""

    def __init__(
        self, runs: RunService, pages: LogPages, reader: LogReader, streams: LogStreams, settings: ApiSettings
    ) -> None:
        self._runs = runs
        self._pages = pages
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
                "events that no longer exist; `skipped` after events that the filters exclude; `end` after the last "
                "event of an ended run. 204: the client has all events.",
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
        wanted = EventFilter.of(query)
        if sum((query.after > 0, query.before is not None, query.tail is not None)) > 1:
            raise InvalidInput("give only one of 'after', 'before' and 'tail'", "before" if query.before else "tail")
        is_backwards = query.before is not None or query.tail is not None
        if is_backwards:
            found = await self._pages.backwards(run, query.before, query.tail or query.limit, wanted)
        else:
            found = await self._pages.forwards(run, query.after, query.limit, wanted)
        events = [LogEvent.of(event) for event in found.events]
        page = LogPage(
            events=events,
            last_seq=max(run.seq, events[-1].seq if events else 0),
            next_after=found.last,
            done=run.status in TERMINAL and found.last >= run.seq,
            gap=found.gap or UNSET,
            first_seq=(events[0].seq if events else None) if is_backwards else UNSET,
            prev_before=(found.first if found.first > 1 else None) if is_backwards else UNSET,
        )
        return ok(page)

    async def stream(self, request: Request, principal: Principal) -> ASGIApp:
        """`GET /agent/logs/{run_id}/stream`: events until the run has ended, or a long poll in the mode `longpoll`.

        204 if the run has ended and the client has all events: it makes an EventSource stop reconnecting.
        """
        query = read_query(request, StreamQuery, absent_if_empty="lastEventId")
        # A reconnecting EventSource repeats the URL with its old `after`; only the header, or the parameter that a
        # polyfill adds, has the last event.
        given = (last_event_id(request), query.last_event_id)
        after = next((seq for seq in given if seq is not None), query.after)
        wanted = EventFilter.of(query)
        if query.tail is not None and query.after:
            raise InvalidInput("give only one of 'after' and 'tail'", "tail")
        run = await self._runs.log(principal.user, request.path_params["run_id"])
        if query.tail is not None and given == (None, None):
            after = await self._pages.before_last(run, query.tail, wanted)
        elif run.status in TERMINAL and after >= run.seq:
            return no_content()
        is_poll = self._settings.log_mode == "longpoll"
        source: ItemSource = self._reader.follow(run, after)
        if wanted:
            source = FilteredSource(source, wanted, every_s=0 if is_poll else SKIPPED_EVERY_S)
        if is_poll:
            return LongPoll(run, source, self._settings, self._streams)
        return EventStream(run.id, source, self._settings, self._streams)
