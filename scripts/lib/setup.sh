# Sourced by scripts/demo, scripts/test and others: prerequisites, and the Python environment of the demo site.
# The caller sets `root` (the checkout) and `name` (for messages). All files are made in $root/target.

python=${PYTHON:-python3}
demo=$root/target/demo
# Compiled modules belong in target/ too, not beside the sources.
PYTHONPYCACHEPREFIX=$root/target/pycache
export PYTHONPYCACHEPREFIX

say() { echo "$name: $*"; }
missing() { echo "$name: $*" >&2; lacking=1; }

# Prints one line for each thing that is missing, and exits if there is one.
check_prerequisites() {
    lacking=
    command -v cc >/dev/null || missing "no C linker: apt-get install gcc libc6-dev"
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")
    if ! have=$(cargo --version 2>/dev/null); then
        missing "no cargo: install a Rust toolchain, $wanted or newer (rustup, or your distribution's cargo package)"
    else
        have=${have#cargo }
        have=${have%%[ -]*}
        oldest=$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)
        [ "$oldest" = "$wanted" ] || missing "cargo $have is too old: install Rust $wanted or newer (rustup update)"
    fi
    check_python
    [ -z "$lacking" ] || exit 1
}

check_python() {
    if ! "$python" -c '' 2>/dev/null; then
        missing "no working $python: apt-get install python3 python3-venv"
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        missing "$("$python" --version) is too old: install Python 3.10 or newer and name it in PYTHON"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing "$python cannot make virtual environments: apt-get install python3-venv"
    fi
}

# The environment with Django. Makes a new one if Django cannot be imported.
demo_venv() {
    wants=$root/conf/demo/requirements.txt
    if ! "$demo/venv/bin/python" -c 'import django' 2>/dev/null; then
        say "making a virtual environment in target/demo/venv"
        mkdir -p "$demo"
        "$python" -m venv --clear "$demo/venv"
    fi
    demo_install "$wants" installed.txt Django
}

# Installs the requirements in file $1 (called $3 in messages), unless the copy $2 in the environment shows that it was done.
demo_install() {
    cmp -s "$1" "$demo/venv/$2" && return
    say "installing $3 from the package index"
    "$demo/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
    cp "$1" "$demo/venv/$2"
}

# Prepares database, static files and the user, unless nothing in conf/demo has changed since the last time.
demo_data() {
    stamp=$demo/prepared
    if [ -f "$stamp" ] && [ -f "$demo/db.sqlite3" ] && [ -z "$(find "$root/conf/demo" -newer "$stamp" | head -n 1)" ]; then
        return
    fi
    say "migrating the database, collecting static files"
    touch "$stamp.draft"
    DEMO_DATA=$demo "$demo/venv/bin/python" "$root/conf/demo/manage.py" prepare
    mv "$stamp.draft" "$stamp"
}
