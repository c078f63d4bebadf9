"""The form of the platform's API: where its methods are, and how it says no."""

from starlette.responses import JSONResponse

API = "/public/api/v3"


def method_of(path: str) -> str:
    """The name of the method at a path, such as `teams.list`; another path as it is."""
    return path.removeprefix(f"{API}/")


def error_response(status: int, message: str, **details: object) -> JSONResponse:
    """An error in the form that the SDK reads."""
    return JSONResponse(
        {"error": message, "details": {"message": message, **details}}, status_code=status
    )
