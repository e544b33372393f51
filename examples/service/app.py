"""Web service that lets its users sort text in the sandbox: `uvicorn app:app`, after `pip install starlette uvicorn`.

POST /sorted           a text; answers with the id of a run
GET  /sorted/{run_id}  the sorted text; 202 while the run is under way, 409 with its error output if it failed
GET  /log/{run_id}     the output of the run, line by line, live
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from swissbrain import ApiError, AsyncClient, ClientError, Event, shell

PLAN = shell("sort text.txt > sorted.txt && wc -l < sorted.txt")


async def sort(request: Request) -> Response:
    """Create a run with the text of the request."""
    client: AsyncClient = request.app.state.client
    run = await client.create_run(PLAN, start=False)
    await client.upload(run.run_id, "text.txt", await request.body())
    await client.start(run.run_id)
    return JSONResponse({"run_id": run.run_id}, status_code=201)


async def result(request: Request) -> Response:
    """Return the result of a run that has ended."""
    client: AsyncClient = request.app.state.client
    run = await client.get_run(request.path_params["run_id"])
    if run.status == "succeeded":
        return PlainTextResponse(await client.read_text(run.run_id, "sorted.txt"))
    if run.ended:
        lines = await client.logs(run.run_id, tail=20, stream="stderr")
        return JSONResponse([line.data["text"] for line in lines if isinstance(line, Event)], status_code=409)
    return Response(status_code=202)


async def log(request: Request) -> Response:
    """Stream the output of a run. If the reader leaves, the stream from the API is closed as well."""
    client: AsyncClient = request.app.state.client

    async def lines() -> AsyncIterator[str]:
        async with aclosing(client.events(request.path_params["run_id"], event_type="tool.output")) as events:
            async for event in events:
                if isinstance(event, Event):
                    yield f"{event.data['text']}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def failed(_: Request, exc: Exception) -> Response:
    """Pass on what the API refused; anything else is an error of this service."""
    return JSONResponse({"error": str(exc)}, status_code=exc.status if isinstance(exc, ApiError) else 502)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Share one client, and its connections, between all requests."""
    async with AsyncClient.from_env() as app.state.client:
        yield


app = Starlette(
    routes=[
        Route("/sorted", sort, methods=["POST"]),
        Route("/sorted/{run_id}", result),
        Route("/log/{run_id}", log),
    ],
    exception_handlers={ClientError: failed},
    lifespan=lifespan,
)
