"""The HTTP application: what is asked and answered, and with which status."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import mtl
from mtl.errors import MtlError, RequestError
from mtl.serve.batcher import BusyError, StoppingError
from mtl.serve.guard import Guard
from mtl.serve.metrics import CONTENT_TYPE
from mtl.serve.page import page
from mtl.serve.service import Answering, Flight, FullError, UnknownEntryError, Wanted

_log = logging.getLogger("mtl")
Row = str | list[Any] | dict[str, Any]


class Predict(BaseModel):
    """Rows for one entry."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "entry": "entail/scalearn/seed0",
                "inputs": [["every dog sees a cat", "some dog sees a cat"]],
                "scores": True,
            }
        },
    )
    entry: str = Field(max_length=400, description="reference of an entry, or its last parts")
    inputs: list[Row] = Field(
        min_length=1,
        description="rows: a text, a list of texts in the order of the task's columns, or an "
        "object with the names of the columns",
    )
    task: str | None = Field(None, max_length=400, description="which task of a joint model")
    scores: bool = Field(False, description="a score per class, too")


class Predicted(BaseModel):
    """Answers to the rows of one request, in their order."""

    entry: str
    task: str
    predictions: list[Any]
    scores: list[dict[str, float]] | None = None
    note: str | None = None


class Named(BaseModel):
    """An entry of the zoo."""

    model_config = ConfigDict(extra="forbid")
    entry: str = Field(max_length=400)


class Problem(BaseModel):
    """Why a request was not answered, and what to do."""

    error: dict[str, Any]


def error(
    status: int, code: str, message: str, retry: int | None = None, close: bool = False
) -> JSONResponse:
    """An error as JSON; ``retry``: seconds after which to ask again."""
    headers = {} if retry is None else {"Retry-After": str(retry)}
    headers |= {"Connection": "close"} if close else {}
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def build_app(service: Answering, *, token: str = "", hosts: Sequence[str] | None = None) -> Any:
    """The application over ``service``, with its guard.

    Args:
        token: what those have to show who load and unload entries; empty: nobody may.
        hosts: see :class:`~mtl.serve.guard.Guard`.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (404, 413, 422, 429, 503, 504)
    }
    app = FastAPI(
        title="mtl serve",
        version=mtl.__version__,
        description="Adapters and compositions of a zoo, side by side on one frozen encoder.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )

    @app.post(
        "/v1/predict",
        responses=refused,
        response_model=Predicted | list[Predicted],
        response_model_exclude_none=True,
        summary="Answer rows of one entry, or, as a list, of several",
    )
    async def predict(body: Predict | list[Predict], request: Request) -> Any:
        several = isinstance(body, list)
        asked = body if isinstance(body, list) else [body]
        if not asked:
            return error(422, "no_request", "The list holds no request; send at least one.")
        if len(asked) > service.bounds.rows:
            text = f"The list holds {len(asked)} requests; at most {service.bounds.rows} are taken."
            return error(422, "too_many", text)
        wanted = [Wanted(item.entry, item.inputs, item.task, item.scores) for item in asked]
        service.check()
        found = await _answered(service, wanted, request)
        if isinstance(found, Response):
            return found
        return JSONResponse(found if several else found[0])

    @app.get("/v1/entries", summary="What is served")
    async def entries() -> dict[str, Any]:
        return {"entries": service.listed()}

    def allowed(authorization: str | None) -> JSONResponse | None:
        if not token:
            text = (
                "Entries are loaded and unloaded by whoever runs the server, unless it was started "
                "with --token-file FILE."
            )
            return error(403, "closed", text)
        shown = (authorization or "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode()):
            text = "Show the server's token in the header: Authorization: Bearer TOKEN."
            return error(401, "no_token", text)
        return None

    @app.post("/v1/entries", responses=refused, summary="Serve a further entry of the zoo")
    async def take(body: Named, authorization: Annotated[str | None, Header()] = None) -> Any:
        if (no := allowed(authorization)) is not None:
            return no
        ref = await run_in_threadpool(service.take, body.entry)
        return {"entry": ref, "loaded": True}

    @app.delete("/v1/entries", responses=refused, summary="Serve an entry no more")
    async def drop(
        entry: Annotated[str, Query(max_length=400)],
        authorization: Annotated[str | None, Header()] = None,
    ) -> Any:
        if (no := allowed(authorization)) is not None:
            return no
        return {"entry": service.drop(entry), "loaded": False}

    @app.get("/healthz", summary="Whether the server lives")
    async def healthz() -> Any:
        if service.alive:
            return {"status": "ok"}
        return error(503, "stopping", "This server is about to end, or its worker died.")

    @app.get("/readyz", summary="Whether requests are taken now")
    async def readyz() -> Any:
        service.check()
        return {"status": "ok", "entries": len(service.served)}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    @app.exception_handler(MtlError)
    async def told(request: Request, problem: MtlError) -> JSONResponse:
        return _told(problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> JSONResponse:
        said = []
        for item in problem.errors()[:3]:
            where = ".".join(str(part) for part in item["loc"] if part not in {"body", "Predict"})
            said.append(f"{where[:80]}: {item['msg'][:200]}" if where else item["msg"][:200])
        text = f"The request cannot be read: {'; '.join(said)}. GET /docs shows its form."
        return error(422, "malformed", text)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, problem: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path[:100]}: {problem.detail}. GET /docs shows all."
        return error(problem.status_code, "refused", text)

    @app.exception_handler(Exception)
    async def failed(request: Request, problem: Exception) -> JSONResponse:
        return error(500, "failed", "The server could not do that; its log says why.")

    paths = [route.path for route in app.routes if hasattr(route, "path")]
    return Guard(app, service.bounds, service.metrics, hosts, paths)


def _told(problem: MtlError) -> JSONResponse:
    if isinstance(problem, BusyError):
        return error(429, "busy", str(problem), problem.seconds)
    if isinstance(problem, StoppingError):
        return error(503, "stopping", str(problem), 1, close=True)
    if isinstance(problem, FullError):
        return error(503, "memory", str(problem), 1)
    if isinstance(problem, UnknownEntryError):
        return error(404, "unknown_entry", str(problem))
    if isinstance(problem, RequestError):
        return error(422, "cannot_answer", str(problem))
    _log.error("%s", problem)
    return error(500, "failed", "The server could not do that; its log says why.")


async def _answered(
    service: Answering, wanted: Sequence[Wanted], request: Request
) -> list[dict[str, Any]] | Response:
    """Answers, or why there are none: time is over, or the client is gone."""
    flight = Flight()
    working = asyncio.ensure_future(service.answers(wanted, flight))
    leaving = asyncio.ensure_future(_gone(request))
    seconds = service.bounds.timeout
    try:
        await asyncio.wait({working, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            return Response(status_code=499)  # nobody reads it; counted
        if flight.started:
            text = f"No answer within {seconds:g} s; send fewer or shorter rows."
            return error(504, "too_long", text)
        text = f"The request waited for {seconds:g} s; ask again later."
        return error(503, "busy", text, max(1, math.ceil(seconds / 2)))
    finally:
        flight.drop()
        leaving.cancel()
        working.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
