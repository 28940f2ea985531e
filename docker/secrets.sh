#!/bin/sh
# Makes docker/secrets: passwords, URLs and keys for the compose files, each in a file of its own. What is there stays.
# The folder is yours alone; its files are readable, since a container's user reads them where they are mounted.
set -eu
umask 022
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # name, text
    [ -s "$1" ] || printf '%s' "$2" > "$1"
}

for name in postgres_password gateway_password worker_password jwt_secret files_secret_key; do
    keep "$name" "$(word)"
done
gateway=$(cat gateway_password)
keep migrate_url "postgresql://postgres:$(cat postgres_password)@postgres:5432/app"
keep gateway_url "postgresql://rowcast_gateway:$gateway@postgres:5432/app"
keep pooled_url "postgresql://rowcast_gateway:$gateway@pgbouncer:6432/app"
keep worker_url "postgresql://rowcast_worker:$(cat worker_password)@postgres:5432/app"
keep smtp_url "smtp://mail:1025"
keep pgbouncer_users "\"rowcast_gateway\" \"$gateway\""
keep s3.json "{\"identities\": [{\"name\": \"gateway\", \"credentials\": [{\"accessKey\": \"rowcast\",
 \"secretKey\": \"$(cat files_secret_key)\"}], \"actions\": [\"Read\", \"Write\", \"List\", \"Tagging\"]}]}"
echo "docker/secrets is complete."
