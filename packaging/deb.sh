#!/bin/sh
# Builds the Debian package from what is committed, with dpkg-buildpackage, into dist/. Arguments go to it (-us, -b ...).
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' cosremaster/__about__.py)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=cosremaster-$version
mkdir "$work/$name"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git archive HEAD | tar -x -C "$work/$name"
else
    tar -c --exclude=./.venv --exclude=./venv --exclude=./.cache --exclude=./dist --exclude=__pycache__ . | tar -x -C "$work/$name"
fi
tar -c --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime=@0 -C "$work" "$name" | gzip -n9 >"$work/cosremaster_$version.orig.tar.gz"
cp -R "$work/$name/packaging/debian" "$work/$name/debian"
(cd "$work/$name" && dpkg-buildpackage -us -uc "$@")
mkdir -p dist
mv -f "$work"/cosremaster_* dist/
