"""The HTTP server of an instance: the part of the platform's public API that the apps use."""

import errno
import logging
import sqlite3
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .authorization import TokenCheck
from .public_api import API, error_response, method_of
from .routes import contents, methods
from .storage.sql.errors import StoreError
from .store import Store

logger = logging.getLogger(__name__)

# Raised for a list instead of a string, a missing key, a huge number, JSON nested too deeply.
_INVALID_VALUE = (
    *(AttributeError, LookupError, OverflowError, TypeError, ValueError),
    *(sqlite3.ProgrammingError, RecursionError),
)


def create_app(store: Store, token: str, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Create the ASGI application of an instance.

    Args:
        store: data of the instance.
        token: that every request must send.
        routers: further routes, which require the same token.
    """
    # Without FastAPI's own pages: they load scripts from a CDN.
    app = FastAPI(title="Local Supervisely", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store
    for router in (contents.router, methods.router, *routers):  # `methods` matches every name
        app.include_router(router)
    app.add_exception_handler(StoreError, _answer_store_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_body)
    app.add_exception_handler(sqlite3.OperationalError, _answer_database_error)
    app.add_exception_handler(OSError, _answer_disk_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    for kind in _INVALID_VALUE:
        app.add_exception_handler(kind, _answer_invalid_value)
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


async def _answer_invalid_value(request: Request, error: Exception) -> JSONResponse:
    # With a traceback: this may be a bug of the instance. Not 500: the SDK would retry for minutes.
    logger.error("method=%s failed", _method(request), exc_info=error)
    return error_response(
        400, f"{_method(request)}: invalid value ({type(error).__name__}: {error})"
    )


async def _answer_database_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("method=%s database: %s", _method(request), error)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return _disk_full(request)
    # The SDK retries after 503, which is right while another process locks the database.
    return error_response(503, f"{_method(request)}: database error ({error})")


async def _answer_disk_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    logger.error("method=%s disk: %s", _method(request), error)
    if error.errno == errno.ENOSPC:
        return _disk_full(request)
    return error_response(500, f"{_method(request)}: {error.strerror or error}")


def _disk_full(request: Request) -> JSONResponse:
    # Not 500: the SDK would retry for minutes.
    return error_response(
        507, f"{_method(request)}: no space left on the instance's disk; free some space"
    )


async def _answer_disconnect(request: Request, error: Exception) -> JSONResponse:
    logger.info("method=%s the client disconnected during the request", _method(request))
    return error_response(400, f"{_method(request)}: the request is incomplete")
