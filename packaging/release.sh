#!/bin/sh
# Makes a release of the commit that is checked out: archives, zipapp, SHA256SUMS in dist/, and the tag v<version>.
set -eu
cd "$(dirname "$0")/.."
version=$(python -c 'from cosremaster.__about__ import __version__; print(__version__)')
fail() { echo "release: $1" >&2; exit 1; }

[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed"
grep -q "^## \[$version\] - [0-9]\{4\}-[0-9][0-9]-[0-9][0-9]$" CHANGELOG.md || fail "CHANGELOG.md has no section [$version] with its date"
later=$(sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/{/^## /d;/[^[:space:]]/p;}' CHANGELOG.md)
[ -z "$later" ] || fail "CHANGELOG.md has entries under [Unreleased], which belong to a version"
git var GIT_COMMITTER_IDENT >/dev/null 2>&1 || fail "git knows no name and address for the tag (git config user.name, user.email)"
git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null && fail "the tag v$version exists"
rm -rf dist
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
sh packaging/packages.sh
sh packaging/zipapp.sh
[ "$(python dist/cosremaster.pyz --version)" = "cosremaster $version" ] || fail "the zipapp tells another version"
(cd dist && sha256sum -- * >SHA256SUMS)
git tag -a "v$version" -m "cosremaster $version"
echo "dist/ and the tag v$version are ready: git push origin v$version"
