#!/usr/bin/env bash
# Build the image with the tag in config.json and push it: docker/publish.sh [docker build options]
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n $(git status --porcelain) ]]; then
    echo "error: uncommitted changes: commit them first, an image is labeled with its commit" >&2
    exit 1
fi
image=$(sed -nE 's/.*"docker_image": "([^"]+)".*/\1/p' config.json)
if docker manifest inspect "$image" >/dev/null 2>&1; then
    echo "error: $image is already published; set a new tag in docker_image of the three config.json" >&2
    exit 1
fi
docker build --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
    -f docker/Dockerfile -t "$image" "$@" .
docker push "$image"
