"""The HTTP server of an instance: the platform's public API, as far as our apps use it."""

import errno
import logging
import sqlite3
from collections.abc import Callable, Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .authorization import TokenCheck
from .faults import FaultInjection, Faults
from .public_api import API, error_response, method_of
from .routes import ROUTERS
from .storage.errors import StoreError
from .store import Store

logger = logging.getLogger(__name__)

# What Python and SQLite say of a list where a text should be, a missing key, a number too large.
_OF_A_WRONG_FORM = (
    *(AttributeError, LookupError, OverflowError, TypeError, ValueError),
    sqlite3.ProgrammingError,
)


def create_app(
    store: Store,
    token: str,
    faults: Faults,
    go: Callable[[float], None],
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The ASGI application of an instance.

    Args:
        store: its data.
        token: every request has to bring it.
        faults: that happen on purpose.
        go: called with the seconds for which nobody is to listen.
        routers: more routes, behind the same token.
    """
    # Without the pages of the API itself: they would load scripts from a CDN.
    app = FastAPI(title="Local Supervisely", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store
    app.state.faults = faults
    for router in (*ROUTERS, *routers):
        app.include_router(router)
    app.add_exception_handler(StoreError, _answer_store_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_body)
    app.add_exception_handler(sqlite3.OperationalError, _answer_database_error)
    app.add_exception_handler(OSError, _answer_disk_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    for kind in _OF_A_WRONG_FORM:
        app.add_exception_handler(kind, _answer_wrong_form)
    app.add_middleware(FaultInjection, faults=faults, go=go)
    app.add_middleware(TokenCheck, token=token)
    return app


def _method(request: Request) -> str:
    return method_of(request.url.path)


async def _answer_store_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StoreError)
    logger.info("method=%s status=%d %s", _method(request), error.status, error)
    return error_response(error.status, f"{_method(request)}: {error}", **error.details)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    method = _method(request)
    if error.status_code in (404, 405) and request.url.path.startswith(f"{API}/"):
        logger.warning("unknown method=%s verb=%s", method, request.method)
        return error_response(404, f"{method}: this instance does not have the method")
    return error_response(error.status_code, f"{method}: {error.detail}")


async def _answer_invalid_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return error_response(400, f"{_method(request)}: {where}")


async def _answer_wrong_form(request: Request, error: Exception) -> JSONResponse:
    # With a traceback, as the mistake may be ours. Not 500: the SDK would try again for minutes.
    logger.error("method=%s cannot be answered", _method(request), exc_info=error)
    return error_response(
        400, f"{_method(request)}: a value has a wrong form ({type(error).__name__}: {error})"
    )


async def _answer_database_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("method=%s database: %s", _method(request), error)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return _disk_full(request)
    # The SDK tries again after 503, as it should if another process holds the database too long.
    return error_response(503, f"{_method(request)}: the database cannot be used ({error})")


async def _answer_disk_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    logger.error("method=%s disk: %s", _method(request), error)
    if error.errno == errno.ENOSPC:
        return _disk_full(request)
    return error_response(500, f"{_method(request)}: {error.strerror or error}")


def _disk_full(request: Request) -> JSONResponse:
    # Not 500: the SDK would try again for minutes.
    return error_response(
        507, f"{_method(request)}: no space is left on the disk of the instance; free some"
    )


async def _answer_disconnect(request: Request, error: Exception) -> JSONResponse:
    logger.info("method=%s the client went away in the middle of the request", _method(request))
    return error_response(400, f"{_method(request)}: the request is incomplete")
