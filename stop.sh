#!/bin/sh
# Stop what start.sh started. The data stays, unless --volumes is given.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "$*" >&2
    exit 1
}

volumes=no agreed=no
for option; do
    case $option in
        --volumes) volumes=yes ;;
        --yes) agreed=yes ;;
        *)
            echo "Usage: ./stop.sh [--volumes [--yes]]"
            echo
            echo "  --volumes   also remove the database, the files and all else that is kept, after asking"
            echo "  --yes       do not ask"
            case $option in -h | --help) exit 0 ;; *) exit 2 ;; esac
            ;;
    esac
done

command -v docker >/dev/null || fail "Docker is not installed."
docker info >/dev/null 2>&1 ||
    fail "The Docker daemon cannot be reached: start it, or see that you may use it (docker info says more)."

# Compose wants a value for each of these, also where .env is gone and nothing is started.
if [ ! -e .env ]; then
    export POSTGRES_PASSWORD=- SERVICE_PASSWORD=- JWT_SECRET_KEY=- S3_ACCESS_KEY=- S3_SECRET_KEY=- GRAFANA_USER=- GRAFANA_PASSWORD=-
fi

if [ $volumes = no ]; then
    docker compose --profile '*' down
    exit
fi
if [ $agreed = no ]; then
    printf 'Remove the database, all files and everything else that is kept? There is no way back. [y/N] '
    read -r answer || answer=""
    case $answer in
        y | Y | yes) ;;
        *) fail "Nothing was removed, and nothing was stopped." ;;
    esac
fi
docker compose --profile '*' down --volumes
