# uv, the installer of Python packages, for scripts to source: found, or fetched; it uses the package index pip is set up for.
# The caller has changed to the checkout, and defines say, die and $python, the interpreter that runs tinamou.
# shellcheck shell=sh
# shellcheck disable=SC2154 # $python is the caller's

export UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}" UV_LINK_MODE="${UV_LINK_MODE:-copy}"
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT

uv_is_usable() { "$1" --version 2>/dev/null | awk '{ split($2, v, "."); new = v[1] > 0 || v[2] >= 9 } END { exit !new }'; }

find_uv() {
    own=.cache/uv
    for uv in "$(command -v uv || true)" $own/bin/uv $own/lib/bin/uv; do
        if [ -n "$uv" ] && uv_is_usable "$uv"; then
            echo "$uv"
            return
        fi
    done
    say "fetching uv from the Python package index"
    rm -rf $own
    if "$python" -m venv $own >/dev/null 2>&1 || { rm -rf $own; /usr/bin/python3 -m venv $own >/dev/null 2>&1; }; then
        $own/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.13,<0.14' >&2
        echo $own/bin/uv
    elif rm -rf $own && "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install -q --disable-pip-version-check --target $own/lib 'uv>=0.13,<0.14' >&2
        echo $own/lib/bin/uv
    else
        rm -rf $own
        die "$python can neither make a virtual environment nor run pip. As root: apt-get install -y python3-venv"
    fi
}

pip_setting() { "$pip_python" -m pip config get "global.$1" 2>/dev/null || true; }

# uv does not read the settings of pip. Where uv has none of its own, pip's hold: a machine that reaches the package
# index through a company's server is usually set up for pip alone.
adopt_settings_of_pip() {
    for pip_python in .cache/uv/bin/python "$python"; do "$pip_python" -m pip --version >/dev/null 2>&1 && break; done
    index=${PIP_INDEX_URL:-$(pip_setting index-url)}
    cert=${PIP_CERT:-$(pip_setting cert)}
    proxy=${PIP_PROXY:-$(pip_setting proxy)}
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}${UV_CONFIG_FILE:-}" ] &&
        [ ! -e "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" ] && [ ! -e /etc/uv/uv.toml ]; then
        export UV_DEFAULT_INDEX="$index"
    fi
    if [ -n "$cert" ] && [ -z "${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE="$cert"; fi
    if [ -n "$proxy" ] && [ -z "${HTTPS_PROXY:-}${https_proxy:-}${ALL_PROXY:-}" ]; then export HTTPS_PROXY="$proxy"; fi
}
