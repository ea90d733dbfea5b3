# Sourced by the commands beside it: makes .venv once, and again when what it should hold has changed.

# environment EXTRAS: install the package with these extras ("" or "[a,b]"); sets $python.
environment() {
    local venv="$top/.venv"
    local mark="$venv/.ready$1"
    python="$venv/bin/python"
    if [ ! -e "$mark" ] || [ "$top/pyproject.toml" -nt "$mark" ] || [ "$top/constraints.txt" -nt "$mark" ]; then
        local base=""
        for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                base=$candidate
                break
            fi
        done
        if [ -z "$base" ]; then
            echo "ooftorch: needs Python 3.11 or later; none found on the PATH" >&2
            exit 2
        fi
        echo "ooftorch: setting up $venv (once; a few minutes)" >&2
        [ -x "$python" ] || "$base" -m venv "$venv"
        "$python" -m pip install --quiet --disable-pip-version-check -c "$top/constraints.txt" -e "$top$1" >&2
        touch "$mark"
    fi
}
