"""Paths and error responses of the platform's API."""

from starlette.responses import JSONResponse

API = "/public/api/v3"


def method_of(path: str) -> str:
    """Return the method name of a path, such as `teams.list`; other paths are unchanged."""
    return path.removeprefix(f"{API}/")


def error_response(status: int, message: str, **details: object) -> JSONResponse:
    """Create an error response in the format that the SDK reads."""
    return JSONResponse(
        {"error": message, "details": {"message": message, **details}}, status_code=status
    )
