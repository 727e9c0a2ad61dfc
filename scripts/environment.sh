# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they get installed.
#   install_debian_packages NAME...   only what is missing; needs root for that alone
#   install_python LOCKFILE           a virtual environment in .venv that matches the lock file

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
export ROOT VENV
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

missing_debian_packages() {
  local installed name
  # dpkg-query fails when it does not know a name, and has then still told about the others.
  installed=$(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null) || true
  for name in "$@"; do
    grep -qx "ii  *$name" <<< "$installed" || printf '%s ' "$name"
  done
}

# Installing a server package starts it and enables it for the next boot. We run our own copies with our own
# configuration, so neither may happen to the machine: a policy-rc.d that says no for the time of the installation,
# and what was enabled by it is disabled again. A subshell, so that its trap tidies up after Ctrl-C as well.
install_debian_packages() (
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if ! command -v dpkg-query >/dev/null; then
    say "This is not a Debian system: what is needed is called there $*"
    exit 0
  fi
  missing=$(missing_debian_packages "$@")
  missing=${missing% }
  [ -n "$missing" ] || exit 0
  if [ "$(id -u)" != 0 ]; then
    say "These Debian packages are missing: $missing"
    say "Install them as root (apt-get install $missing) and start again."
    exit 69
  fi
  say "Installing Debian packages: $missing"
  trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
  if [ ! -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
  fi
  status=0
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # a list of names
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends $missing; } >&2 </dev/null || status=$?
  for unit in $missing; do
    [ ! -e "/lib/systemd/system/$unit.service" ] || deb-systemd-helper disable "$unit.service" >/dev/null 2>&1 || true
  done
  exit "$status"
)

# The stamp says which files the environment was made from, where, and by which lock file; requirements-dev.lock
# holds everything of requirements.lock, so it will do for both.
install_python() {
  local stamp="$VENV/.installed" wanted python
  wanted=$(cat "$ROOT"/requirements*.lock "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)
  if grep -qsxF -e "$wanted $1 $ROOT" -e "$wanted requirements-dev.lock $ROOT" "$stamp"; then return 0; fi
  case $(cat "$stamp" 2>/dev/null) in
    "" | *" $ROOT") ;;
    *" /"*)
      say "The folder has been moved: .venv is made anew"
      rm -rf "$VENV"
      ;;
  esac
  say "Installing Python packages of $1 into .venv (a minute, once)"
  if [ ! -x "$VENV/bin/python" ]; then
    # Debian's own before one of the PATH, which may lie in somebody's home where the service's user cannot reach it.
    python=$(command -v /usr/bin/python3 python3 | head -1)
    "$python" -m venv "$VENV"
  fi
  "$VENV/bin/python" -m pip install --quiet --require-hashes -r "$ROOT/$1" >&2
  "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$ROOT" >&2
  # Whoever runs it later may not be allowed to write here, and would compile it at every start.
  "$VENV/bin/python" -m compileall -q "$ROOT/src"
  printf '%s\n' "$wanted $1 $ROOT" > "$stamp"
}
