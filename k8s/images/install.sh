#!/bin/sh
# Install Python distributions into a virtual environment without pip, compile what they import, and list them.
# Usage: install.sh FOLDER PACKAGES REQUIREMENT…; PACKAGES are separated by spaces, and imported with all their modules.
# It runs in a build stage. The registry is that of /etc/pip.conf, a secret of the build, or else pip's own.
set -eu

folder=$1 packages=$2
shift 2
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed in BASE")'

# pip runs from its wheel, which the context has: neither this stage nor the image needs one of its own.
install() {
    environment=$1
    shift
    python3 -m venv --without-pip "$environment"
    PYTHONPATH=$(echo /context/pip-*.whl) "$environment/bin/python" -m pip install --quiet --no-compile \
        --constraint /context/constraints.txt "$@"
}

install "$folder" "$@"
"$folder/bin/python" /context/compile.py $packages

# cyclonedx-bom has an environment of its own, because the list would contain it otherwise.
install /sbom cyclonedx-bom
/sbom/bin/cyclonedx-py environment --output-reproducible --output-file "$folder/sbom.python.json" "$folder/bin/python"
