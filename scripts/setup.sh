# Sourced by the other scripts: makes .venv with the project and the named extras, once.
#
#   setup_env coordinator,agent,dev
#
# An environment that has them already is used as it is; VENV chooses another folder.

setup_env() {
    local extras=$1 python=${PYTHON:-python3.11}
    VENV=${VENV:-.venv}
    local project installed missing=
    project=$(cksum <pyproject.toml)
    installed=$(cat "$VENV/tunefleet-installed" 2>/dev/null || true)
    for extra in ${extras//,/ }; do
        case "$installed" in
            *" $extra "*"$project") ;;
            *) missing=yes ;;
        esac
    done
    if [ -z "$missing" ]; then
        return
    fi
    if ! command -v "$python" >/dev/null; then
        echo "error: $python is not installed; TuneFleet needs Python 3.11 (or set PYTHON)" >&2
        return 1
    fi
    echo "Setting up $VENV with tunefleet[$extras] (about 3 GB; a few minutes)..." >&2
    "$python" -m venv "$VENV"
    "$VENV/bin/pip" install -q --disable-pip-version-check -e ".[$extras]"
    echo " ${extras//,/ } $project" >"$VENV/tunefleet-installed"
}
