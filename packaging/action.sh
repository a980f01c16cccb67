#!/usr/bin/env bash
# The work of action.yml: builds the image $OUTPUT of $RECIPE, checks it, writes the page, and tells all in $GITHUB_OUTPUT.
set -euo pipefail

options=()
while IFS= read -r line; do
    [ -z "${line//[[:space:]]/}" ] || options+=(--set "$line")
done <<<"${VARIABLES:-}"

cosremaster build "$RECIPE" "${options[@]}" --output "$OUTPUT" --digest sha256 --force
cosremaster verify "$OUTPUT"
page=${PAGE:-$OUTPUT.html}
cosremaster inspect "$OUTPUT" --html "$page" --force ${AGAINST:+--against "$AGAINST"}
{
    echo "image=$OUTPUT"
    echo "html=$page"
    echo "sha256=$(cut -d ' ' -f 1 "$OUTPUT.sha256")"
} >>"$GITHUB_OUTPUT"
