#!/usr/bin/env bash
# Build the image under the name in config.json and push it: docker/publish.sh [options of build]
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n $(git status --porcelain) ]]; then
    echo "error: there are changes without a commit; an image belongs to one" >&2
    exit 1
fi
image=$(sed -nE 's/.*"docker_image": "([^"]+)".*/\1/p' config.json)
if docker manifest inspect "$image" >/dev/null 2>&1; then
    echo "error: $image is published already; give docker_image in the three config.json a new tag" >&2
    exit 1
fi
docker build --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
    -f docker/Dockerfile -t "$image" "$@" .
docker push "$image"
