#!/bin/sh
# `train` and `serve` run the entrypoint of the app's manifest; other commands run unchanged.
set -eu

case ${1:-} in
train | serve)
    manifest=supervisely_integration/$1/config.json
    if [ ! -r "$manifest" ]; then
        echo "error: no code in $PWD: mount a clone (-v \"\$PWD\":/app:ro), or build docker/Dockerfile.deploy" >&2
        exit 2
    fi
    if [ -z "${TASK_ID:-}" ]; then # without a task, the SDK has no data directory
        export SLY_APP_DATA_DIR="${SLY_APP_DATA_DIR:-/sly-app-data}"
    fi
    data=${SLY_APP_DATA_DIR:-/sly-app-data}
    if [ -e "$data" ] && [ ! -w "$data" ]; then
        echo "error: user $(id -u) may not write to $data: start with --user 0, or give the folder to that user" >&2
        exit 2
    fi
    read_manifest() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$manifest" "$1"; }
    APP_NAME=${APP_NAME:-$(read_manifest name)} # required by the SDK; set by the platform
    export APP_NAME
    command=$(read_manifest entrypoint)
    # shellcheck disable=SC2086 # split the entrypoint into words
    exec $command
    ;;
esac
exec "$@"
