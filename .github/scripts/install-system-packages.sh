#!/bin/bash
# Install the Debian packages that the tests, and the default data set, need.
set -euo pipefail
sudo apt-get -qq update
sudo apt-get -qq install -y --no-install-recommends dataset-fashion-mnist
