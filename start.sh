#!/bin/sh
# Start the service in containers: makes the secrets at the first start, waits until all is healthy, says where it is.
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<'TEXT'
Usage: ./start.sh [--with PART,…] [--no-mail] [--seed | --no-seed] [--timeout SECONDS]

  --with PART,…       also start redis (counts requests), s3 (keeps files), monitoring (Prometheus and Grafana)
  --no-mail           no mail catcher: mails are files in the volume, unless SMTP_HOST is set
  --seed, --no-seed   load the demo data, or don't; else it asks, on a terminal
  --timeout SECONDS   how long to wait until all is healthy (180)

The secrets are made once and kept in .env. What --with says is not remembered: say it at each start.
TEXT
}

fail() {
    echo "$*" >&2
    exit 1
}

# --- What is wanted ---

with="" mail=yes seed="" timeout=180
while [ $# -gt 0 ]; do
    case $1 in
        --with) [ $# -gt 1 ] || fail "--with needs a list of parts."; with="$with,$2"; shift ;;
        --with=*) with="$with,${1#*=}" ;;
        --no-mail) mail=no ;;
        --seed) seed=yes ;;
        --no-seed) seed=no ;;
        --timeout) [ $# -gt 1 ] || fail "--timeout needs a number of seconds."; timeout=$2; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
parts=$(echo "$with" | tr ',' ' ')
for part in $parts; do
    case $part in
        redis | s3 | monitoring) ;;
        mail) mail=yes ;;
        *) fail "There is no part $part; there are redis, s3, mail and monitoring." ;;
    esac
done
case $timeout in '' | *[!0-9]*) fail "--timeout needs a number of seconds." ;; esac
has() { case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# --- What it needs ---

command -v docker >/dev/null || fail "Docker is not installed: https://docs.docker.com/engine/install/ says how."
version=$(docker compose version --short 2>/dev/null) ||
    fail "The Compose plugin of Docker is not installed: https://docs.docker.com/compose/install/ says how."
version=${version#v}
major=${version%%.*} minor=${version#*.}
minor=${minor%%.*}
if [ "$major" -lt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -lt 24 ]; }; then
    fail "Compose $version is too old: 2.24 or newer is needed."
fi
docker info >/dev/null 2>&1 ||
    fail "The Docker daemon cannot be reached: start it, or see that you may use it (docker info says more)."

# --- The secrets ---

# Characters that need no quoting, neither in a URL nor in .env.
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

value() { # of a name in .env
    [ -f .env ] || return 0
    sed -n "s/^$1=//p" .env | tail -n 1 | sed -e 's/^"\(.*\)"$/\1/' -e "s/^'\(.*\)'\$/\1/"
}

volume="${COMPOSE_PROJECT_NAME:-reos}_postgres"
if [ ! -e .env ]; then
    if docker volume inspect "$volume" >/dev/null 2>&1; then
        fail "There is a database (the volume $volume), but no .env with its passwords: bring that file back," \
            "or remove the data with ./stop.sh --volumes."
    fi
    (umask 077 && set -C && echo "# Made by start.sh. Keep a copy where you keep other secrets." >.env)
    echo "Made .env with fresh secrets."
fi
for name in POSTGRES_PASSWORD SERVICE_PASSWORD JWT_SECRET_KEY S3_ACCESS_KEY S3_SECRET_KEY GRAFANA_USER GRAFANA_PASSWORD; do
    # An empty one, as in a copy of .env.example, is missing too; but a bucket of one's own may need no keys.
    case $name in S3_*) has s3 || ! grep -q "^$name=" .env || continue ;; esac
    if [ -z "$(value "$name")" ]; then
        case $name in
            S3_ACCESS_KEY | GRAFANA_USER) new=reos-$(secret | cut -c 1-8) ;;
            *) new=$(secret) ;;
        esac
        # Where an editor left the last line open, what is added must begin a new one.
        [ -z "$(tail -c 1 .env)" ] || echo >>.env
        echo "$name=$new" >>.env
    fi
done

# --- What is started ---

publish=${PUBLISH:-$(value PUBLISH)}
publish=${publish:-127.0.0.1:8000}
base=${PUBLIC_URL:-$(value PUBLIC_URL)}
case $publish in
    0.0.0.0:* | \[::\]:*) here=http://127.0.0.1:${publish##*:} ;;
    *:*) here=http://$publish ;;
    *) here=http://127.0.0.1:$publish ;;
esac
export PUBLIC_URL="${base:-$here}"

# A mail server of one's own takes the place of the catcher.
[ -z "${SMTP_HOST:-$(value SMTP_HOST)}" ] || mail=no
profiles="" services="postgres api worker" ports="api:${publish##*:}"
if [ $mail = yes ]; then
    export SMTP_HOST=mail SMTP_PORT=1025 SMTP_TLS=none
    profiles="$profiles,mail" services="$services mail" ports="$ports mail:1025 mail:8025"
fi
if has redis; then
    export REDIS_URL=redis://redis:6379/0
    profiles="$profiles,redis" services="$services redis"
fi
if has s3; then
    export STORAGE_PROVIDER=s3 S3_ENDPOINT=http://s3.localhost:8333
    profiles="$profiles,s3" services="$services s3" ports="$ports s3:8333"
fi
if has monitoring; then
    profiles="$profiles,monitoring" services="$services prometheus grafana"
    ports="$ports prometheus:9090 grafana:3001"
fi
export COMPOSE_PROFILES="${profiles#,}"

running=$(docker compose ps --services --status running 2>/dev/null || true)
for pair in $ports; do
    service=${pair%%:*} port=${pair#*:}
    # What runs already holds its own port.
    if echo "$running" | grep -qx "$service" || ! command -v curl >/dev/null; then continue; fi
    code=0
    curl -s -o /dev/null --max-time 1 "http://127.0.0.1:$port/" || code=$?
    # 7: nobody answers there.
    [ $code = 7 ] || fail "Port $port, which $service needs, is taken by another program: stop that, or see PUBLISH" \
        "in docs/operations.md."
done

docker compose up --detach --build ||
    fail "The containers could not be started; docker compose logs says why (for the database: docker compose logs migrate)."

echo "Waiting until all is healthy ..."
waited=0
while :; do
    states=$(docker compose ps --all --format '{{.Service}} {{.State}} {{.Health}}')
    missing=""
    for service in $services; do
        echo "$states" | grep -qx "$service running healthy" || missing="$missing $service"
    done
    [ -n "$missing" ] || break
    [ $waited -lt "$timeout" ] || fail "Not healthy after $timeout seconds:$missing. docker compose logs$missing says why."
    sleep 1
    waited=$((waited + 1))
done

# --- The demo data ---

if [ -z "$seed" ] && [ -t 0 ] && [ -t 1 ]; then
    printf 'Load the demo data, with log-ins that everybody knows? [y/N] '
    read -r answer || answer=""
    case $answer in y | Y | yes) seed=yes ;; esac
fi
if [ "$seed" = yes ]; then
    docker compose exec -T api reos seed
fi

# --- Where it is ---

say() { printf '  %-11s %s\n' "$1" "$2"; }
echo
echo "Real Estate OS runs. ./stop.sh stops it."
echo
say Start "$PUBLIC_URL/"
say API "$PUBLIC_URL/api/v1"
say Docs "$PUBLIC_URL/docs"
say Health "$PUBLIC_URL/health"
[ $mail = no ] || say Mails "http://127.0.0.1:8025"
! has s3 || say S3 "http://127.0.0.1:8333"
if has monitoring; then
    say Prometheus "http://127.0.0.1:9090"
    say Grafana "http://127.0.0.1:3001, log in as $(value GRAFANA_USER) with $(value GRAFANA_PASSWORD)"
fi
[ "$seed" = yes ] || say "First Admin" "docker compose run --rm migrate reos create-admin EMAIL - ORGANISATION"
