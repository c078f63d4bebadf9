"""Work-arounds for the Supervisely SDK, one topic per file; `docs/sdk.md` lists them all."""
