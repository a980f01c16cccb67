#!/bin/sh
# Builds dist/cosremaster.pyz: cosremaster and the libraries that it needs in one file, for the Python that runs this and
# for machines of this kind. It unpacks itself below ~/.shiv at its first start.
set -eu
cd "$(dirname "$0")/.."
mkdir -p dist
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800} shiv --quiet --reproducible --compressed \
    --console-script cosremaster --python '/usr/bin/env python3' --output-file dist/cosremaster.pyz .
