"""The app: the API, the page, health and metrics behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

import diptych
from diptych.core.errors import UserError
from diptych.predictor import Predictor
from diptych.serve.collection import Collection
from diptych.serve.engine import Engine
from diptych.serve.guard import Guard
from diptych.serve.refusal import Refusal, one_line, refusal_of
from diptych.serve.routes import router
from diptych.serve.schemas import Health, Problem
from diptych.serve.settings import ServeSettings
from diptych.serve.telemetry import Telemetry

STATIC = Path(__file__).parent / "static"


def make_app(predictor: Predictor, collection: Collection | None, settings: ServeSettings) -> FastAPI:
    """Build the app of a run.

    Args:
        predictor: the run.
        collection: what is searched; None without an index.
        settings: the limits.

    Raises:
        UserError: for a run that offers nothing to serve.
    """
    telemetry = Telemetry()
    engine = Engine(predictor, collection, settings, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await engine.stop()

    app = FastAPI(
        title="diptych",
        version=diptych.__version__,
        summary=f"What a {predictor.system} run offers: {', '.join(engine.offers)}.",
        docs_url=None,  # FastAPI's own pages load from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.engine, app.state.telemetry = engine, telemetry
    app.add_middleware(Guard, settings=settings, telemetry=telemetry)
    app.add_exception_handler(UserError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _failed)
    app.include_router(router)
    app.add_api_route("/health/live", live, tags=["server"])
    app.add_api_route("/health/ready", ready, tags=["server"], responses={503: {"model": Problem}})
    app.add_api_route("/metrics", metrics, tags=["server"], response_class=Response)
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", documents, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def page() -> FileResponse:
    """Return the page for people."""
    return FileResponse(STATIC / "index.html")


async def documents() -> FileResponse:
    """Return the page that shows the API and lets one try it."""
    return FileResponse(STATIC / "docs.html")


async def live() -> Health:
    """Say that the process answers."""
    return Health(status="live")


async def ready(request: Request) -> Health:
    """Say that the model's thread answers and the index can be read; 504 when it is too busy to say so in time."""
    try:
        await request.app.state.engine.check()
    except UserError as error:
        raise Refusal(503, one_line(str(error)), retry=5) from None
    return Health(status="ready")


async def metrics(request: Request) -> Response:
    """Return counters in Prometheus' text format."""
    telemetry, collection = request.app.state.telemetry, request.app.state.engine.collection
    if collection is not None:
        telemetry.pictures.set(await request.app.state.engine.helped(collection.__len__))
    return Response(telemetry.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UserError)
    refusal = refusal_of(error)
    headers = None if refusal.retry is None else {"retry-after": str(refusal.retry)}
    return JSONResponse({"error": one_line(str(refusal))}, refusal.status, headers=headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return JSONResponse({"error": one_line(f"{place}: {first['msg']}")}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": one_line(str(error.detail))}, error.status_code, headers=error.headers)
