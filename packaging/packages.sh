#!/bin/sh
# Builds the source archive and the wheel from a clean copy into dist/, checks both, and builds them again elsewhere:
# the bytes have to be the same.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

copy() { # what git tracks, or in an unpacked source archive all that lies there
    mkdir "$1"
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git archive HEAD | tar -x -C "$1"
    else
        tar -c --exclude=./.venv --exclude=./venv --exclude=./.cache --exclude=./dist --exclude=__pycache__ . | tar -x -C "$1"
    fi
}

copy "$work/first"
(umask 077 && copy "$work/second")
python -m build --outdir "$work/made" "$work/first" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
TZ=Asia/Tokyo LC_ALL=C python -m build --outdir "$work/again" "$work/second" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
for archive in "$work"/made/*; do
    cmp "$archive" "$work/again/$(basename "$archive")"
done
twine check --strict "$work"/made/*
check-wheel-contents "$work"/made/*.whl
mkdir -p dist
mv -f "$work"/made/* dist/
