"""The log of a run: a page at a time, or as a live stream."""

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from edge_api.auth.api_keys import Principal
from edge_api.http.parsing import last_event_id, read_query
from edge_api.http.request_models import LogQuery, StreamQuery
from edge_api.http.response_models import Gap, LogEvent, LogPage
from edge_api.http.responses import nothing, ok
from edge_api.logs.longpoll import LongPoll
from edge_api.logs.reader import LogReader
from edge_api.logs.sse import EventStream, Streams
from edge_api.runs_service import RunService
from edge_api.settings import ApiSettings
from infra.contract.log import Event
from infra.contract.states import TERMINAL


class LogRoutes:
    """Both ways to read a log; they give the same events."""

    def __init__(self, runs: RunService, reader: LogReader, streams: Streams, settings: ApiSettings) -> None:
        self._runs = runs
        self._reader = reader
        self._streams = streams
        self._settings = settings

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
        """`GET /agent/logs/{run_id}/stream`: events until the run has ended, in the mode `longpoll` the next of them;
        204 if the client has them all.
        """
        after = last_event_id(request)
        query = read_query(request, StreamQuery)
        after = query.after if after is None else after
        run = await self._runs.log(principal.user, request.path_params["run_id"])
        if run.status in TERMINAL and after >= run.seq:
            return nothing()
        source = self._reader.follow(run, after)
        if self._settings.log_mode == "longpoll":
            return LongPoll(run, source, self._settings, self._streams)
        return EventStream(run.id, source, self._settings, self._streams)
